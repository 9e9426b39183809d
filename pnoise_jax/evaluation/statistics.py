"""How sure an accuracy is: over seeds, and over what was predicted together.

The standard error is bootstrapped. What is drawn with replacement are the seeds, S - 1 of S, and
the test set's units, U - 1 of U, the same ones for all seeds, as these share the test set. One
fewer than there are makes the bootstrap's variance of a mean unbiased (T. Hesterberg, What Teachers
Should Know About the Bootstrap, The American Statistician 69, 2015). A unit is one example, or,
where noise mixes a batch, the whole batch: its examples were predicted together and are not
independent.

Few seeds make few degrees of freedom: the interval is Student's, with Satterthwaite's degrees of
freedom for the two sources, S - 1 where seeds dominate and U - 1 where units do.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """Which examples a model got right, for each seed.

    Attributes:
      correct: (seeds, n) bool.
      batches: (n,) int, the batch that each example was mixed in, from 0, the same for all seeds;
        None where every example stands alone.
    """

    correct: np.ndarray
    batches: np.ndarray | None = None

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
        """How many examples, or batches, can be drawn."""
        return self.correct.shape[1] if self.batches is None else len(np.unique(self.batches))

    @property
    def by_seed(self) -> np.ndarray:
        """Accuracy of each seed in percent, (seeds,)."""
        return 100 * self.correct.mean(axis=1)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and how sure it is.

    Attributes:
      value: in percent, or in points for a difference.
      interval: its confidence interval.
      p_value: of the hypothesis that the value is 0, two-sided, from the same distribution.
    """

    value: float
    interval: tuple[float, float]
    p_value: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of 0, else 0."""
        low, high = self.interval
        return int(low > 0) - int(high < 0)


def accuracy(
    hits: Hits, *, confidence: float, resamples: int, seed: int, over_seeds: bool = True
) -> Estimate:
    """The mean accuracy over seeds, in percent.

    Args:
      hits: of one protocol.
      confidence: of the interval, such as 0.95.
      resamples: bootstrap replicates.
      seed: of the bootstrap.
      over_seeds: whether seeds are drawn, too; if not, or if there is one, the interval is about
        these models alone.

    Raises:
      ValueError: a confidence outside (0, 1), or fewer than 100 resamples.
    """
    return _estimate([(hits,)], confidence, resamples, seed, over_seeds)


def difference(
    hits: Hits,
    reference: Hits,
    *,
    confidence: float,
    resamples: int,
    seed: int,
    over_seeds: bool = True,
) -> Estimate:
    """The mean accuracy over seeds less that of ``reference``, in points: a paired comparison.

    Seed s is drawn for both. So are units where the reference has none of its own, or the same;
    batches of two different orders are drawn apart, and only the seeds are paired.

    Args:
      hits, reference: of the same seeds and examples.
      confidence, resamples, seed, over_seeds: as in `accuracy`.

    Raises:
      ValueError: as in `accuracy`, or the shapes differ.
    """
    if hits.correct.shape != reference.correct.shape:
        raise ValueError(
            f"a paired comparison needs the same seeds and examples; got {hits.correct.shape} and "
            f"{reference.correct.shape}"
        )
    if reference.batches is None or np.array_equal(hits.batches, reference.batches):
        return _estimate([(hits, reference)], confidence, resamples, seed, over_seeds)
    return _estimate([(hits,), (reference,)], confidence, resamples, seed, over_seeds)


def _estimate(
    drawn_apart: Sequence[tuple[Hits, ...]],
    confidence: float,
    resamples: int,
    seed: int,
    over_seeds: bool,
) -> Estimate:
    """Of the first's accuracy less the second's, if there is one; a tuple's members go together."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}: give a number between 0 and 1, such as 0.95")
    if resamples < 100:
        raise ValueError(f"resamples={resamples}: give at least 100, better 2000")
    generator = np.random.default_rng(seed)
    together = [hits for group in drawn_apart for hits in group]
    signs = (1, -1)[: len(together)]
    by_seed = sum(s * hits.by_seed for s, hits in zip(signs, together, strict=True))
    drawn = [column for group in drawn_apart for column in _replicates(group, resamples, generator)]
    replicates = sum(s * column for s, column in zip(signs, drawn, strict=True))
    of_units = float(replicates.mean(axis=1).var())
    of_seeds, seeds = 0.0, len(by_seed)
    if seeds > 1 and over_seeds:
        of_seeds = float(by_seed.var(ddof=1)) / seeds
        weights = generator.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=resamples)
        error = (replicates * weights).sum(axis=1).std() / (seeds - 1)
    else:
        error = np.sqrt(of_units)
    units = min(hits.units for hits in together)
    freedom = _degrees_of_freedom((of_seeds, seeds - 1), (of_units, units - 1))
    bounds = (0.0, 100.0) if len(together) == 1 else (-100.0, 100.0)
    return _student(float(by_seed.mean()), float(error), freedom, confidence, bounds)


def _degrees_of_freedom(*sources: tuple[float, int]) -> float:
    """Satterthwaite's, of a sum of variances with degrees of freedom of their own."""
    total = sum(variance for variance, _ in sources)
    parts = sum(variance**2 / max(1, freedom) for variance, freedom in sources)
    return total**2 / parts if parts else 1.0


def _student(
    value: float, error: float, freedom: float, confidence: float, bounds: tuple[float, float]
) -> Estimate:
    """The interval value ± t error, cut at the bounds, and the p-value of 0."""
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    interval = (max(bounds[0], value - half), min(bounds[1], value + half))
    if error == 0:
        return Estimate(value, interval, float(value == 0))
    return Estimate(value, interval, float(2 * stats.t.sf(abs(value) / error, freedom)))


def _replicates(
    group: tuple[Hits, ...], resamples: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Accuracies in percent on resampled units: for each of the group (resamples, seeds).

    Units with the same counts cannot be told apart. So what is drawn is how often each *kind* of
    unit comes up: few numbers, however many examples there are.
    """
    batches = group[0].batches
    if batches is None:
        counts = [hits.correct.astype(np.int64) for hits in group]
        sizes = np.ones(counts[0].shape[1], np.int64)
    else:
        sizes = np.bincount(batches)
        counts = [_count_by_batch(hits.correct, batches) for hits in group]
    kinds, frequency = np.unique(np.vstack([*counts, sizes]), axis=1, return_counts=True)
    *correct, size = kinds
    units = frequency.sum()
    drawn = generator.multinomial(units - 1, frequency / units, size=resamples)
    accuracies = 100 * (drawn @ np.stack(correct, axis=1)) / (drawn @ size)[:, None]
    return np.split(accuracies, len(group), axis=1)


def _count_by_batch(correct: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """(seeds, batches) int: how many examples of each batch are right."""
    return np.stack([np.bincount(batches, weights=row).astype(np.int64) for row in correct])
