"""What an audit asks for, checked before any long work."""

import dataclasses
from typing import Literal

import numpy as np

DEFAULT_BATCH_SIZES = (10, 50, 100)
MIN_BATCHES = 5  # of a protocol; an interval over fewer says nothing


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """What an audit asks for.

    Attributes:
      batch_sizes: of the protocols; the first is the one that the verdict is about. None takes 10,
        50 and 100, as far as batches of one class are possible.
      purity_steps: how many batch compositions the purity sweep tries, from sorted to mixed.
      confidence: of the intervals.
      resamples: of the bootstrap.
      seed: of the shuffled order, which all models share, of random noise and of the bootstrap.
      interval: over what: "seeds" (and what was predicted together), "batches" (a single model, or
        these models alone), or "auto": seeds where there are two or more.
      mixed_batches: allow class-sorted batches that hold more than one class.
    """

    batch_sizes: tuple[int, ...] | None = None
    purity_steps: int = 6
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0
    interval: Literal["auto", "seeds", "batches"] = "auto"
    mixed_batches: bool = False

    def __post_init__(self):
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence!r}: give a number between 0 and 1")
        if not _is_int(self.resamples) or self.resamples < 100:
            raise ValueError(f"resamples={self.resamples!r}: give a whole number of at least 100")
        if not _is_int(self.purity_steps) or self.purity_steps < 0 or self.purity_steps == 1:
            raise ValueError(
                f"purity_steps={self.purity_steps!r}: give a whole number of at least 2 (sorted "
                "and mixed), or 0 to leave the purity sweep out"
            )
        if not _is_int(self.seed) or not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed!r}: give a whole number from 0 to {2**32 - 1}")
        if self.interval not in ("auto", "seeds", "batches"):
            raise ValueError(
                f"interval={self.interval!r}: choose one of 'auto', 'seeds', 'batches'"
            )
        if self.batch_sizes is None:
            return
        if not isinstance(self.batch_sizes, tuple) or not self.batch_sizes:
            raise ValueError(
                f"batch_sizes={self.batch_sizes!r}: give a tuple of some, such as (10, 50), or None"
            )
        for size in self.batch_sizes:
            if not _is_int(size) or size < 2:
                raise ValueError(
                    f"batch_sizes={self.batch_sizes!r}: give whole numbers of at least 2; in a "
                    "batch of 1 nothing is mixed"
                )
        if len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise ValueError(f"batch_sizes={self.batch_sizes!r}: one of them comes twice")

    def for_labels(self, labels: np.ndarray, what: str) -> "AuditSettings":
        """These settings with batch sizes that make sense for a test set.

        Args:
          labels: (n,).
          what: the test set in words, for errors.

        Raises:
          ValueError: the test set is too small for intervals, or has no class with two examples; a
            batch is larger than the test set, or in class order no batch could hold one class.
        """
        largest = int(np.bincount(labels).max())
        most = len(labels) // MIN_BATCHES
        if largest < 2 or most < 2:
            raise ValueError(
                f"{what} has {len(labels)} examples, at most {largest} of a class: an audit needs "
                f"classes of at least 2 and {2 * MIN_BATCHES} examples; use a larger split"
            )
        if self.batch_sizes is None:
            fitting = tuple(k for k in DEFAULT_BATCH_SIZES if k <= min(largest, most))
            return dataclasses.replace(self, batch_sizes=fitting or (min(largest, most),))
        for size in self.batch_sizes:
            if size > len(labels):
                raise ValueError(
                    f"batch_sizes={size}: {what} has only {len(labels)} examples; use a smaller "
                    "batch or a larger split"
                )
            if size > largest and not self.mixed_batches:
                raise ValueError(
                    f"batch_sizes={size}: class-sorted batches of one class are impossible, as the "
                    f"largest class of {what} has {largest} examples; use at most {largest}, or "
                    "allow mixed_batches"
                )
            if size > most:
                raise ValueError(
                    f"batch_sizes={size}: {what} with {len(labels)} examples gives fewer than "
                    f"{MIN_BATCHES} batches, too few for an interval; use at most {most}"
                )
        return self

    def over_seeds(self, seeds: int) -> bool:
        """Whether intervals are over seeds.

        Raises:
          ValueError: they shall be, and there are fewer than two.
        """
        if self.interval == "seeds" and seeds < 2:
            raise ValueError(
                f"interval='seeds' needs at least 2 seeds, and there is {seeds}; give more seeds, "
                "or interval='batches', which says nothing about other seeds"
            )
        return seeds > 1 and self.interval != "batches"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
