"""Intervals and tests for accuracies and differences, over seeds, examples, batches and orders.

The variance of a mean over S seeds and n examples has two crossed sources, seeds and examples, and
is estimated by V(seeds) + V(units) - V(interaction) (A. C. Cameron, J. B. Gelbach, D. L. Miller,
Robust Inference With Multiway Clustering, Journal of Business & Economic Statistics 29, 2011). A
unit is one example, or a whole batch if its examples were predicted together in one order. Two
orders cluster the same examples in two ways: V(batches of one) + V(batches of the other) -
V(examples). A mean over many random orders has examples as units, plus the variance over orders.

Differences are paired by example and by seed. Their interval is Student's with Satterthwaite's
degrees of freedom. It counts one more example gained and one more lost than were observed (D. G.
Bonett, R. M. Price, Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
Based on Paired Data, Journal of Educational and Behavioral Statistics 37, 2012), so that few or no
differing examples are not mistaken for certainty.

Accuracies have the interval of Clopper and Pearson at the effective number of examples that the
variance implies (E. L. Korn, B. I. Graubard, Confidence Intervals for Proportions With Small
Expected Number of Positive Counts Estimated From Survey Data, Survey Methodology 24, 1998). At 0
and 100 % it is close to the rule of three, counted in units.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """Which examples a model predicted correctly, for each seed.

    Attributes:
      correct: (seeds, n) bool; or float, the share of several orders in which an example was
        predicted correctly.
      batches: (n,) int, the number of the batch in which each example was mixed, from 0, the same
        for all seeds; None if every example counts separately.
      order_variance: variance of the mean accuracy, in points squared, from the choice of random
        orders: the variance over orders divided by their number.
    """

    correct: np.ndarray
    batches: np.ndarray | None = None
    order_variance: float = 0.0

    def __post_init__(self):
        if self.correct.ndim != 2 or 0 in self.correct.shape:
            raise ValueError(f"correct has shape {self.correct.shape}; expected (seeds, n)")
        if self.batches is not None and self.batches.shape != self.correct.shape[1:]:
            raise ValueError(
                f"batches have shape {self.batches.shape}; expected {self.correct.shape[1:]}"
            )
        if self.units < 2:
            raise ValueError(
                f"{self.units} {'example' if self.batches is None else 'batch'} says nothing about "
                "chance: give at least two"
            )

    @property
    def units(self) -> int:
        """Number of examples, or of batches."""
        return self.correct.shape[1] if self.batches is None else len(np.unique(self.batches))

    @property
    def by_seed(self) -> np.ndarray:
        """Accuracy of each seed in percent, (seeds,)."""
        return 100 * self.correct.mean(axis=1)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
      value: in percent, or in points for a difference.
      interval: its confidence interval.
      p_value: two-sided, of the hypothesis that a difference is 0; None for an accuracy.
    """

    value: float
    interval: tuple[float, float]
    p_value: float | None = None

    def require_p_value(self) -> float:
        """Returns the p-value of a difference; raises ValueError for an estimate without one."""
        if self.p_value is None:
            raise ValueError(f"{self} is not a difference: it has no p-value")
        return self.p_value

    @property
    def sign(self) -> int:
        """1 or -1 if the interval is on one side of 0, else 0: the sign is not resolved."""
        low, high = self.interval
        return int(low > 0) - int(high < 0)

    def within(self, bound: float) -> bool:
        """Whether the whole interval is inside (-bound, bound): equivalence to 0."""
        low, high = self.interval
        return -bound < low and high < bound


def accuracy(hits: Hits, *, confidence: float, over_seeds: bool = True) -> Estimate:
    """The mean accuracy over seeds, in percent.

    Args:
      hits: hits of one protocol.
      confidence: confidence of the interval, such as 0.95.
      over_seeds: whether the interval also covers other seeds; if not, or if there is only one
        seed, it is about these models.

    Raises:
      ValueError: confidence is not in (0, 1).
    """
    tail = _tail(confidence)
    variance = _variance(hits.correct, [hits.batches], over_seeds)
    total = variance.total + hits.order_variance / 1e4
    share = float(hits.correct.mean())
    return Estimate(100 * share, _clopper_pearson(share, total, variance.freedom, hits, tail))


def difference(
    hits: Hits, reference: Hits, *, confidence: float, over_seeds: bool = True
) -> Estimate:
    """The mean accuracy over seeds minus the mean accuracy of ``reference``, in points.

    It is paired by seed and by example, for any order and batches.

    Args:
      hits, reference: hits of the same seeds and examples.
      confidence, over_seeds: as in `accuracy`.

    Raises:
      ValueError: as in `accuracy`, or the shapes differ.
    """
    if hits.correct.shape != reference.correct.shape:
        raise ValueError(
            f"a paired comparison needs the same seeds and examples; got {hits.correct.shape} and "
            f"{reference.correct.shape}"
        )
    changes = hits.correct.astype(np.float64) - reference.correct
    return _mean_change(
        changes,
        [hits.batches, reference.batches],
        (hits.order_variance + reference.order_variance) / 1e4,
        confidence,
        over_seeds,
    )


def mean_change(changes: np.ndarray, *, confidence: float) -> Estimate:
    """The mean of paired changes (n,) in [-1, 1], in points, with its interval and p-value."""
    return _mean_change(changes[None].astype(np.float64), [None], 0.0, confidence, False)


def student(value: float, error: float, freedom: float, *, confidence: float) -> Estimate:
    """Returns Student's interval of a number, and the p-value of the hypothesis that it is 0.

    Args:
      value: the number.
      error: its standard error, above 0 and in the same unit.
      freedom: degrees of freedom of the error.
      confidence: confidence of the interval.
    """
    half = float(scipy.stats.t.isf(_tail(confidence), freedom)) * error
    p_value = float(2 * scipy.stats.t.sf(abs(value) / error, freedom))
    return Estimate(value, (value - half, value + half), p_value)


def proportion(events: float, count: float, *, confidence: float) -> Estimate:
    """The share of independent events, in percent, with Clopper and Pearson's interval."""
    return Estimate(100 * events / count, _binomial(events, count, _tail(confidence)))


def balanced(hits: Hits, labels: np.ndarray) -> Hits:
    """Returns the hits, weighted so that all classes count equally, for balanced accuracy.

    The values of ``correct`` are scaled and are no longer shares; only `difference` accepts them.
    """
    counts = np.bincount(labels)
    weight = len(labels) / ((counts > 0).sum() * counts[labels])
    return dataclasses.replace(hits, correct=hits.correct * weight)


def adjust_p_values(p_values: Sequence[float]) -> np.ndarray:
    """Applies Holm's correction, so that the p-values of several tests hold for all jointly."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def degrees_of_freedom(*sources: tuple[float, int]) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances with known degrees of freedom."""
    total = sum(variance for variance, _ in sources)
    parts = sum(variance**2 / max(1, freedom) for variance, freedom in sources)
    return total**2 / parts if parts else float(max(freedom for _, freedom in sources))


@dataclasses.dataclass(frozen=True)
class _Variance:
    """The variance of a mean share, and its degrees of freedom."""

    total: float
    freedom: float


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}: give a number between 0 and 1, such as 0.95")
    return (1 - confidence) / 2


def _variance(
    values: np.ndarray, clusterings: Sequence[np.ndarray | None], over_seeds: bool
) -> _Variance:
    """The variance of the mean of ``values`` (seeds, n), with up to two clusterings of examples."""
    seeds = len(values)
    by_example = values.mean(axis=0)
    different = [batches for batches in clusterings if batches is not None]
    if len(different) == 2 and np.array_equal(different[0], different[1]):
        different = different[:1]
    parts = [_clustered(by_example, batches) for batches in different or [None]]
    of_units = sum(parts)
    if len(parts) == 2:
        of_units = max(of_units - _clustered(by_example, None), *parts)
    units = min(len(np.unique(b)) for b in different) if different else values.shape[1]
    if seeds == 1 or not over_seeds:
        return _Variance(of_units, units - 1)
    of_seeds = float(values.mean(axis=1).var(ddof=1)) / seeds
    rest = values - by_example - values.mean(axis=1, keepdims=True) + values.mean()
    interaction = sum(_clustered(row, batches) for row in rest for batches in different or [None])
    interaction /= max(1, len(different)) * seeds * (seeds - 1)
    total = max(of_seeds + of_units - interaction, of_seeds, of_units)
    return _Variance(total, degrees_of_freedom((of_seeds, seeds - 1), (of_units, units - 1)))


def _clustered(values: np.ndarray, batches: np.ndarray | None) -> float:
    """The variance of the mean of ``values`` (n,), if batches vary independently."""
    deviations = values - values.mean()
    if batches is not None:
        deviations = np.bincount(batches, weights=deviations)
        deviations = deviations[np.bincount(batches) > 0]
    units = len(deviations)
    return float(units / (units - 1) * np.sum(deviations**2)) / len(values) ** 2


def _mean_change(
    changes: np.ndarray,
    clusterings: Sequence[np.ndarray | None],
    of_orders: float,
    confidence: float,
    over_seeds: bool,
) -> Estimate:
    """The mean of changes (seeds, n), with the two additional examples of Bonett and Price."""
    variance = _variance(changes, clusterings, over_seeds)
    n = changes.shape[1]
    if not np.any(changes):  # then only independent units are evidence of no difference
        n = min([n, *(len(np.unique(b)) for b in clusterings if b is not None)])
    value = float(changes.mean())
    center = value * n / (n + 2)
    weight = max(1.0, float(np.abs(changes).max()))  # the largest weight, if examples have weights
    error = np.sqrt(variance.total + of_orders + 2 * (weight / (n + 2)) ** 2)
    around = student(center, error, variance.freedom, confidence=confidence)
    low, high = np.clip(around.interval, -1, 1)
    return Estimate(100 * value, (100 * float(low), 100 * float(high)), around.p_value)


def _clopper_pearson(
    share: float, variance: float, freedom: float, hits: Hits, tail: float
) -> tuple[float, float]:
    """The interval in percent, at the number of independent examples with this variance."""
    seeds, n = hits.correct.shape
    if variance == 0 or share in (0, 1):
        size = float(hits.units)
    else:
        size = share * (1 - share) / variance
        t = scipy.stats.t
        size *= float(t.isf(tail, max(1, n - 1)) / t.isf(tail, freedom)) ** 2
        size = min(size, float(seeds * n))
    return _binomial(share * size, size, tail)


def _binomial(right: float, size: float, tail: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of the share ``right / size``, in percent."""
    low = scipy.stats.beta.ppf(tail, right, size - right + 1) if right > 0 else 0.0
    high = scipy.stats.beta.ppf(1 - tail, right + 1, size - right) if right < size else 1.0
    return 100 * float(low), 100 * float(high)
