"""The points of the curves: means over seeds, intervals, and differences from the first arm."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.evaluation import Hits
from pnoise_jax.robustness import KINDS
from pnoise_jax.studies.robustness.measuring import CurveSettings, Measured

CONFIDENCE = 0.95
ENOUGH_SEEDS = 3


@dataclasses.dataclass(frozen=True)
class Point:
    """Accuracy of an arm at one strength.

    Attributes:
      arm, kind, strength: what was measured.
      accuracy: mean over seeds, in percent.
      low, high: interval of the accuracy, over seeds and examples; with fewer than three seeds,
        over examples only.
      seeds: number of seeds.
      trained: the strength of this kind in the arm's training, or None.
      gain: the accuracy minus the first arm's, in points, paired by seed and example; None for the
        first arm, and with fewer than three seeds.
      gain_low, gain_high: interval of the gain.
      p_value: p-value of the hypothesis of no gain, corrected by Holm's method over the whole
        study.
    """

    arm: str
    kind: str
    strength: float
    accuracy: float
    low: float
    high: float
    seeds: int
    trained: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    p_value: float | None = None

    @property
    def beyond(self) -> bool:
        """Whether the strength is above that of this kind in the arm's training."""
        return self.trained is not None and self.strength > self.trained * (1 + 1e-6)


def summarise(
    measured: Sequence[Measured],
    settings: CurveSettings,
    trained: Mapping[str, Mapping[str, float]],
) -> list[Point]:
    """Computes the points, arm by arm.

    Args:
      measured: the measured models; every arm has the same seeds, and the first is the baseline.
      settings: the settings of the measurements.
      trained: by arm, the result of `arms.trained_strengths`.
    """
    arms: dict[str, list[Measured]] = {}
    for run in measured:
        arms.setdefault(run.arm, []).append(run)
    first = next(iter(arms.values()))
    points = [
        _point(runs, first, kind, number, strength, trained.get(arm, {}).get(kind))
        for arm, runs in arms.items()
        for kind in KINDS
        for number, strength in enumerate(settings.strengths[kind])
    ]
    return _correct(points)


def _point(
    runs: Sequence[Measured],
    first: Sequence[Measured],
    kind: str,
    number: int,
    strength: float,
    trained: float | None,
) -> Point:
    hits, reference = (_hits(group, kind, number) for group in (runs, first))
    enough = len(runs) >= ENOUGH_SEEDS
    estimate = evaluation.accuracy(hits, confidence=CONFIDENCE, over_seeds=enough)
    arm, count = runs[0].arm, len(runs)
    point = Point(arm, kind, strength, estimate.value, *estimate.interval, count, trained)
    if runs is first or not enough:
        return point
    gain = evaluation.difference(hits, reference, confidence=CONFIDENCE)
    low, high = gain.interval
    return dataclasses.replace(
        point, gain=gain.value, gain_low=low, gain_high=high, p_value=gain.require_p_value()
    )


def _hits(runs: Sequence[Measured], kind: str, number: int) -> Hits:
    return Hits(np.stack([run.correct(kind)[number] for run in runs]))


def _correct(points: list[Point]) -> list[Point]:
    """Returns the points with corrected p-values; strength 0 counts once per arm, not per kind."""
    tested = [p for p in points if p.p_value is not None and (p.strength or p.kind == KINDS[0])]
    values = [p.p_value for p in tested if p.p_value is not None]
    adjusted = evaluation.adjust_p_values(values) if values else []
    by_point = {
        (p.arm, p.kind, p.strength): float(a) for p, a in zip(tested, adjusted, strict=True)
    }
    return [
        point
        if point.p_value is None
        else dataclasses.replace(
            point,
            p_value=by_point[point.arm, point.kind if point.strength else KINDS[0], point.strength],
        )
        for point in points
    ]
