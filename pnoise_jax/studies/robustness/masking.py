"""Signs that an attack failed, not that a model is robust: gradients that are masked.

An attack by gradients only bounds robustness from above. Where its results contradict what every
attack that works must show, the bound says little (A. Athalye et al., https://arxiv.org/abs/1802.00420;
N. Carlini et al., https://arxiv.org/abs/1902.06705).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pnoise_jax.studies.robustness.measuring import CurveSettings, Measured

TOLERANCE = 1.0  # points: an accuracy may rise by this much from chance alone
SURVIVORS = 1.0  # percent that may be right after an attack that may change every pixel at will
ZEROS = 1.0  # percent of images without a gradient


def find_signs(measured: Sequence[Measured], settings: CurveSettings) -> list[str]:
    """A sentence for each sign, of each model on its own; none where the attacks look sound.

    Args:
      measured: the models.
      settings: how they were measured.
    """
    return [
        f"{run.arm}, seed {run.seed}: {sign}"
        for run in measured
        for sign in (
            *_rises(run, settings),
            *_stronger_fgsm(run, settings),
            *_survivors(run),
            *_zeros(run),
        )
    ]


def _rises(run: Measured, settings: CurveSettings) -> Iterator[str]:
    for kind in ("fgsm", "pgd"):
        strengths, accuracy = settings.strengths[kind], run.accuracy(kind)
        lowest = np.minimum.accumulate(accuracy)
        number = int(np.argmax(accuracy - lowest))
        if accuracy[number] - lowest[number] > TOLERANCE:
            before = int(np.argmin(accuracy[: number + 1]))
            yield (
                f"the accuracy under {kind} is {accuracy[before]:.1f} % at epsilon "
                f"{strengths[before]:.3g} and {accuracy[number]:.1f} % at "
                f"{strengths[number]:.3g}; a larger epsilon allows every smaller change, so the "
                "attack fails there"
            )


def _stronger_fgsm(run: Measured, settings: CurveSettings) -> Iterator[str]:
    accuracy = {
        kind: dict(zip(settings.strengths[kind], run.accuracy(kind), strict=True))
        for kind in ("fgsm", "pgd")
    }
    both = [s for s in accuracy["fgsm"] if s in accuracy["pgd"]]
    worst = max(both, key=lambda s: accuracy["pgd"][s] - accuracy["fgsm"][s])
    fgsm, pgd = accuracy["fgsm"][worst], accuracy["pgd"][worst]
    if pgd - fgsm > TOLERANCE:
        yield (
            f"at epsilon {worst:.3g} PGD leaves {pgd:.1f} % and FGSM {fgsm:.1f} %; PGD should be "
            "at least as strong, so its steps are misled or too few"
        )


def _survivors(run: Measured) -> Iterator[str]:
    share = 100 * float(run.whole_range.mean())
    if share > SURVIVORS:
        yield (
            f"PGD that may change every pixel at will leaves {share:.1f} %; it should leave none: "
            "the gradients are masked, or the model hardly looks at the image"
        )


def _zeros(run: Measured) -> Iterator[str]:
    share = 100 * float(run.zero_gradients.mean())
    if share > ZEROS:
        yield f"{share:.1f} % of the images have a gradient of exactly 0, so attacks have no lead"
