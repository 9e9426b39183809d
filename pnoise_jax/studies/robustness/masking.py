"""Signs of masked gradients: an attack failed, which does not mean that the model is robust.

A gradient attack only gives an upper bound on robustness. If its results contradict what every
working attack must show, the bound says little (A. Athalye et al.,
https://arxiv.org/abs/1802.00420; N. Carlini et al., https://arxiv.org/abs/1902.06705).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pnoise_jax.robustness import BLIND
from pnoise_jax.studies.robustness.figure import TITLES
from pnoise_jax.studies.robustness.measuring import ATTACKS, CurveSettings, Measured

TOLERANCE = 1.0  # points by which an accuracy can rise by chance
SURVIVORS = 1.0  # largest percent right after an attack with unlimited changes of pixels
ZEROS = 1.0  # largest percent of images without a gradient


def find_signs(measured: Sequence[Measured], settings: CurveSettings) -> list[str]:
    """Describes the signs of each model, one sentence per sign; none if the attacks look sound.

    Args:
      measured: the measured models.
      settings: the settings of the measurements.
    """
    return [
        f"{run.arm}, seed {run.seed}: {sign}"
        for run in measured
        for sign in (
            *_rises(run, settings),
            *_stronger_fgsm(run, settings),
            *_misled(run, settings),
            *_blind(run, settings),
            *_survivors(run),
            *_zeros(run),
        )
    ]


def comparable(settings: CurveSettings) -> list[tuple[int, int]]:
    """Returns pairs of strengths where FGSM's epsilon is at most PGD's: PGD should be stronger."""
    fgsm, pgd = settings.strengths["fgsm"], settings.strengths["pgd"]
    return [
        (i, j)
        for i, smaller in enumerate(fgsm)
        for j, larger in enumerate(pgd)
        if 0 < smaller <= larger
    ]


def _rises(run: Measured, settings: CurveSettings) -> Iterator[str]:
    for kind in ATTACKS:
        strengths, accuracy = settings.strengths[kind], run.accuracy(kind)
        lowest = np.minimum.accumulate(accuracy)
        number = int(np.argmax(accuracy - lowest))
        if accuracy[number] - lowest[number] > TOLERANCE:
            before = int(np.argmin(accuracy[: number + 1]))
            yield (
                f"the accuracy under {TITLES[kind]} is {accuracy[before]:.1f} % at epsilon "
                f"{strengths[before]:.3g} and {accuracy[number]:.1f} % at "
                f"{strengths[number]:.3g}; a larger epsilon allows every smaller change, so the "
                "attack fails there"
            )


def _stronger_fgsm(run: Measured, settings: CurveSettings) -> Iterator[str]:
    pairs = comparable(settings)
    if not pairs:
        return
    fgsm, pgd = run.accuracy("fgsm"), run.accuracy("pgd")
    i, j = max(pairs, key=lambda pair: pgd[pair[1]] - fgsm[pair[0]])
    if pgd[j] - fgsm[i] > TOLERANCE:
        smaller, larger = settings.strengths["fgsm"][i], settings.strengths["pgd"][j]
        yield (
            f"PGD of epsilon {larger:.3g} leaves {pgd[j]:.1f} % and FGSM of {smaller:.3g} leaves "
            f"{fgsm[i]:.1f} %; PGD should be at least as strong, so its steps are misled or too few"
        )


def _misled(run: Measured, settings: CurveSettings) -> Iterator[str]:
    for kind in ATTACKS:
        entropy, margin = (run.accuracy(kind, loss) for loss in ("cross_entropy", "margin"))
        worst = int(np.argmax(entropy - margin))
        if entropy[worst] - margin[worst] > TOLERANCE:
            yield (
                f"at epsilon {settings.strengths[kind][worst]:.3g} {TITLES[kind]} leaves "
                f"{entropy[worst]:.1f} % if it increases cross-entropy and {margin[worst]:.1f} "
                "% if it increases the margin, whose gradient signs do not depend on the "
                "scale of the logits; those of cross-entropy are misleading, so another loss may "
                "leave less than the worst of both, which is reported"
            )


def _blind(run: Measured, settings: CurveSettings) -> Iterator[str]:
    for kind in ATTACKS:
        blind, attacked = run.accuracy(kind, BLIND), run.accuracy(kind)
        if (blind - attacked).max() <= TOLERANCE:
            yield (
                f"{TITLES[kind]} is no stronger than random changes of the same size at any "
                f"epsilon: at {settings.strengths[kind][-1]:.3g} it leaves {attacked[-1]:.1f} % "
                f"and random changes leave {blind[-1]:.1f} %; the gradients are useless, or "
                "the epsilons are too small or too large to tell"
            )


def _survivors(run: Measured) -> Iterator[str]:
    share = 100 * float(run.whole_range.mean())
    random = 100 * float(run.random_images.mean())
    if share > SURVIVORS:
        yield (
            f"PGD that may change every pixel at will leaves {share:.1f} %; it should leave none: "
            "the gradients are masked, PGD has too few steps, or the model hardly uses the image"
        )
    elif share and share >= random / 2:
        yield (
            f"PGD that may change every pixel at will leaves {share:.2g} %, and random pixels "
            f"leave {random:.2g} %; it should leave far fewer, and seems to make images random"
        )


def _zeros(run: Measured) -> Iterator[str]:
    share = 100 * float(run.zero_gradients.mean())
    if share > ZEROS:
        yield f"{share:.1f} % of the images have a gradient of exactly 0, which no attack can use"
