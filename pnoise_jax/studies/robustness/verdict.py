"""The verdict on the attacks for each arm, with numbers: they look sound, or it is undecided."""

from collections.abc import Sequence

import numpy as np

from pnoise_jax.robustness import BLIND
from pnoise_jax.studies.robustness import masking
from pnoise_jax.studies.robustness.figure import TITLES
from pnoise_jax.studies.robustness.measuring import ATTACKS, CurveSettings, Measured

BOUND = (
    "Accuracy under attack is an upper bound of robustness, with or without a sign: a stronger "
    "attack may leave less."
)


def verdicts(measured: Sequence[Measured], settings: CurveSettings) -> list[str]:
    """Describes for each arm what is undecided or, if there are no signs, what was checked.

    Args:
      measured: the measured models.
      settings: the settings of the measurements.
    """
    arms: dict[str, list[Measured]] = {}
    for run in measured:
        arms.setdefault(run.arm, []).append(run)
    texts = []
    for arm, runs in arms.items():
        undecided = [text for kind in ATTACKS for text in _undecided(runs, kind, settings)]
        texts += [f"{arm}: {text}" for text in undecided]
        if not undecided and not masking.find_signs(runs, settings):
            texts.append(f"{arm}: {_no_sign(runs, settings)}")
    return texts


def _undecided(runs: Sequence[Measured], kind: str, settings: CurveSettings) -> list[str]:
    """Returns a sentence if the accuracy of one of the models hardly fell."""
    curve = min((run.accuracy(kind) for run in runs), key=lambda curve: curve[0] - curve.min())
    if curve[0] - curve.min() > masking.TOLERANCE:
        return []
    more = f" or more steps than {settings.pgd_steps}" if kind == "pgd" else ""
    seeds = " of at least one seed" if len(runs) > 1 else ""
    return [
        f"undecided under {TITLES[kind]}: the accuracy{seeds} did not fall by more than "
        f"{masking.TOLERANCE:g} point up to epsilon {settings.strengths[kind][-1]:.3g} "
        f"({curve[0]:.1f} % to {curve.min():.1f} %). The model may be robust or the attack may "
        f"fail; a larger epsilon{more} would tell"
    ]


def _no_sign(runs: Sequence[Measured], settings: CurveSettings) -> str:
    falls = []
    for kind in ATTACKS:
        curve = np.mean([run.accuracy(kind) for run in runs], axis=0)
        blind = np.mean([run.accuracy(kind, BLIND) for run in runs], axis=0)
        lowest = int(curve.argmin())
        falls.append(
            f"under {TITLES[kind]} the accuracy fell from {curve[0]:.1f} % to "
            f"{curve[lowest]:.1f} % at epsilon {settings.strengths[kind][lowest]:.3g}, where "
            f"random changes of the same size leave {blind[lowest]:.1f} %"
        )
    shares = {
        name: 100 * float(np.mean([getattr(run, name) for run in runs]))
        for name in ("whole_range", "random_images", "zero_gradients")
    }
    return (
        f"no sign of masked gradients: {'; '.join(falls)}; {_compared(runs, settings)}; PGD that "
        f"may change every pixel at will left {shares['whole_range']:.2g} % (images of random "
        f"pixels: {shares['random_images']:.2g} %); {shares['zero_gradients']:.2g} % of the images "
        "have no gradient"
    )


def _compared(runs: Sequence[Measured], settings: CurveSettings) -> str:
    """Describes how much more accuracy PGD leaves than FGSM, if they can be compared."""
    pairs = masking.comparable(settings)
    compared = {i for i, _ in pairs}
    left = [f"{s:.3g}" for i, s in enumerate(settings.strengths["fgsm"]) if s and i not in compared]
    missing = f"FGSM of {', '.join(left)} was not compared with PGD, whose epsilons are smaller"
    if not pairs:
        return missing
    more = max(
        float(run.accuracy("pgd")[j] - run.accuracy("fgsm")[i]) for run in runs for i, j in pairs
    )
    if more > 0:
        text = f"PGD left at most {more:.1f} points more than FGSM of the same or a smaller epsilon"
    else:
        text = "PGD left no more than FGSM of the same or a smaller epsilon"
    return f"{text}; {missing}" if left else text
