"""The results of a study: the table, what noise adds to each method, and how certain that is.

Differences are paired by seed and by example. With fewer than three seeds, the study claims nothing
about other seeds: there are no intervals, and no difference is called resolved.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.evaluation import Estimate, Hits
from pnoise_jax.studies.adaptation.measuring import PROTOCOLS, Measured, hits
from pnoise_jax.studies.adaptation.methods import SOURCE_ONLY, TARGET_LABELS, Method

CONFIDENCE = 0.95
ENOUGH_SEEDS = 3
METRICS = ("accuracy", "per_class_mean")
# The comparisons by name: (the noisy row's protocol, what is subtracted).
NOISE_EFFECTS = {
    "trained": ("clean", "the method without noise"),
    "shuffled": ("noisy_shuffled", "the method without noise"),
    "order": ("noisy_listed", "the same runs in shuffled order"),
}


@dataclasses.dataclass(frozen=True)
class Value:
    """A mean over seeds, in percent, and its interval if there are enough seeds."""

    value: float
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A paired difference, in points.

    Attributes:
      value: mean over seeds.
      interval: confidence interval; None with fewer than three seeds.
      p_value: corrected by Holm's method over the whole study; None with fewer than three seeds.
    """

    value: float
    interval: tuple[float, float] | None = None
    p_value: float | None = None

    @property
    def sign(self) -> int:
        """1 or -1 if the difference is resolved, otherwise 0."""
        if self.interval is None or self.p_value is None or self.p_value >= 1 - CONFIDENCE:
            return 0
        return int(self.interval[0] > 0) - int(self.interval[1] < 0)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the study's table.

    Attributes:
      method: the method.
      seeds: number of seeds.
      values: by protocol, the study's metric.
      other: by protocol, the mean of the other metric.
      chosen: the best evaluation during training by target labels, averaged over seeds; None if
        there were no evaluations before the last step.
      choice: by how much `chosen` exceeds the last checkpoint, averaged over seeds; None if
        `chosen` is.
      adapted: the gain over source only, without noise at inference; None for source only itself.
      gap_closed: the share of the gap between source only and target labels that the method closes,
        in percent; None for these two, or if target labels are not better than source only.
      effects: by name in `NOISE_EFFECTS`; empty without noise.
    """

    method: Method
    seeds: int
    values: dict[str, Value]
    other: dict[str, float]
    chosen: float | None
    choice: float | None
    adapted: Difference | None
    gap_closed: float | None
    effects: dict[str, Difference]


def summarise(measured: Sequence[Measured], *, metric: str = "accuracy") -> list[Row]:
    """Returns the rows of the table, in the order of the runs.

    Args:
      measured: the runs; every row must have the same seeds.
      metric: one of `METRICS`, for all values and differences.

    Raises:
      ValueError: the metric is unknown.
    """
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r} is unknown: give one of {', '.join(METRICS)}")
    groups: dict[Method, list[Measured]] = {}
    for run in measured:
        groups.setdefault(run.method, []).append(run)
    study = _Study(groups, metric)
    rows = [study.row(method) for method in groups]
    return _correct(rows)


class _Study:
    """All runs, by row, and the values that are computed from them."""

    def __init__(self, groups: dict[Method, list[Measured]], metric: str):
        self._groups, self._metric = groups, metric

    def row(self, method: Method) -> Row:
        runs, plain = self._groups[method], Method(method.name)
        other = METRICS[1 - METRICS.index(self._metric)]
        protocols = [protocol for protocol in PROTOCOLS if protocol in runs[0].correct]
        chosen, choice = self._choice(runs)
        is_bound = plain in (Method(SOURCE_ONLY), Method(TARGET_LABELS))
        return Row(
            method=method,
            seeds=len(runs),
            values={protocol: self._value(runs, protocol) for protocol in protocols},
            other={p: float(np.mean([getattr(run, other)(p) for run in runs])) for p in protocols},
            chosen=chosen,
            choice=choice,
            adapted=self._difference((method, "clean"), (Method(SOURCE_ONLY), "clean"))
            if method != Method(SOURCE_ONLY)
            else None,
            gap_closed=None if is_bound else self._gap_closed(method),
            effects=self._effects(method),
        )

    def _hits(self, method: Method, protocol: str) -> Hits:
        runs = self._groups[method]
        correct = hits(runs, protocol)
        if self._metric == "accuracy":
            return correct
        return evaluation.balanced(correct, runs[0].labels)

    def _value(self, runs: list[Measured], protocol: str) -> Value:
        mean = self._mean(runs[0].method, protocol)
        if len(runs) < ENOUGH_SEEDS:
            return Value(mean, None)
        correct = self._hits(runs[0].method, protocol)
        if self._metric == "accuracy":
            estimate = evaluation.accuracy(correct, confidence=CONFIDENCE)
        else:  # a weighted mean is not a proportion: use Student's interval
            zeros = dataclasses.replace(correct, correct=np.zeros_like(correct.correct))
            estimate = evaluation.difference(correct, zeros, confidence=CONFIDENCE)
        return Value(mean, estimate.interval)

    def _mean(self, method: Method, protocol: str) -> float:
        runs = self._groups[method]
        return float(np.mean([getattr(run, self._metric)(protocol) for run in runs]))

    def _difference(self, ours: tuple[Method, str], theirs: tuple[Method, str]) -> Difference:
        value = self._mean(*ours) - self._mean(*theirs)
        if len(self._groups[ours[0]]) < ENOUGH_SEEDS:
            return Difference(value)
        estimate: Estimate = evaluation.difference(
            self._hits(*ours), self._hits(*theirs), confidence=CONFIDENCE
        )
        return Difference(value, estimate.interval, estimate.p_value)

    def _effects(self, method: Method) -> dict[str, Difference]:
        if not method.noise:
            return {}
        plain = Method(method.name), "clean"
        against = {"trained": plain, "shuffled": plain, "order": (method, "noisy_shuffled")}
        return {
            name: self._difference((method, protocol), against[name])
            for name, (protocol, _) in NOISE_EFFECTS.items()
        }

    def _gap_closed(self, method: Method) -> float | None:
        low, high = (self._mean(Method(name), "clean") for name in (SOURCE_ONLY, TARGET_LABELS))
        return 100 * (self._mean(method, "clean") - low) / (high - low) if high > low else None

    def _choice(self, runs: list[Measured]) -> tuple[float | None, float | None]:
        """Returns the best evaluation by target labels, and by how much it exceeds the last one."""
        if any(len(run.looks) < 2 for run in runs):
            return None, None
        place = 1 + METRICS.index(self._metric)
        looks = [np.array([look[place] for look in run.looks]) for run in runs]
        if any(np.isnan(values).any() for values in looks):
            return None, None
        best = [values.max() for values in looks]
        return float(np.mean(best)), float(np.mean(best) - np.mean([v[-1] for v in looks]))


def _correct(rows: list[Row]) -> list[Row]:
    """Returns the rows with p-values corrected over all differences of the study."""
    differences = [d for row in rows for d in (row.adapted, *row.effects.values())]
    tested = [d for d in differences if d is not None and d.p_value is not None]
    p_values = [d.p_value for d in tested if d.p_value is not None]
    adjusted = evaluation.adjust_p_values(p_values) if tested else []
    corrected = {
        id(d): dataclasses.replace(d, p_value=float(p))
        for d, p in zip(tested, adjusted, strict=True)
    }
    return [
        dataclasses.replace(
            row,
            adapted=corrected.get(id(row.adapted), row.adapted),
            effects={name: corrected.get(id(d), d) for name, d in row.effects.items()},
        )
        for row in rows
    ]


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the table for adaptation.json."""
    return [dataclasses.asdict(row) | {"label": row.method.label} for row in rows]
