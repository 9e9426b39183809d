"""How sure an accuracy is: bootstrap over seeds and over what was predicted together.

Two draws nest. Of S seeds, S - 1 are drawn with replacement; in each, of U units U - 1. One fewer
than there are makes the bootstrap's variance of a mean unbiased (T. Hesterberg, What Teachers
Should Know About the Bootstrap, The American Statistician 69, 2015). A unit is one example, or,
where noise mixes a batch, the whole batch: its examples were predicted together and are not
independent.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """Which examples a model got right, for each seed.

    Attributes:
      correct: (seeds, n) bool.
      batches: (seeds, n) int, the batch that each example was mixed in, from 0; None where every
        example stands alone.
    """

    correct: np.ndarray
    batches: np.ndarray | None = None

    def __post_init__(self):
        if self.correct.ndim != 2 or 0 in self.correct.shape:
            raise ValueError(f"correct has shape {self.correct.shape}; expected (seeds, n)")
        if self.batches is not None and self.batches.shape != self.correct.shape:
            raise ValueError(
                f"batches have shape {self.batches.shape}; expected {self.correct.shape}"
            )

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
      p_value: of the hypothesis that the value is 0, two-sided.
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
    batches of two different orders are drawn apart.

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
    signs = [1, -1][: len(together)]
    value = sum(sign * hits.by_seed.mean() for sign, hits in zip(signs, together, strict=True))
    seeds = len(together[0].correct)
    by_seed = np.zeros((resamples, seeds))
    for s in range(seeds):
        replicates = [
            column
            for group in drawn_apart
            for column in _replicates(group, s, resamples, generator)
        ]
        by_seed[:, s] = sum(sign * r for sign, r in zip(signs, replicates, strict=True))
    if seeds > 1 and over_seeds:
        weights = generator.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=resamples)
        replicates = (by_seed * weights).sum(axis=1) / (seeds - 1)
    else:
        replicates = by_seed.mean(axis=1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(replicates, (tail, 100 - tail))
    below, above = (replicates <= 0).sum(), (replicates >= 0).sum()
    p_value = min(1.0, 2 * (1 + min(below, above)) / (1 + resamples))
    return Estimate(float(value), (float(low), float(high)), float(p_value))


def _replicates(
    group: tuple[Hits, ...], s: int, resamples: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Accuracies in percent of resampled units of seed s, (resamples,) for each of the group.

    Units with the same counts cannot be told apart. So what is drawn is how often each *kind* of
    unit comes up: few numbers, however many examples there are.
    """
    batches = group[0].batches
    if batches is None:
        counts = [hits.correct[s].astype(np.int64) for hits in group]
        sizes = np.ones_like(counts[0])
    else:
        sizes = np.bincount(batches[s])
        counts = [np.bincount(batches[s], weights=hits.correct[s]).astype(int) for hits in group]
    kinds, frequency = np.unique(np.stack([*counts, sizes]), axis=1, return_counts=True)
    *correct, size = kinds
    units = frequency.sum()
    drawn = generator.multinomial(max(1, units - 1), frequency / units, size=resamples)
    examples = drawn @ size
    return [100 * (drawn @ column) / examples for column in correct]
