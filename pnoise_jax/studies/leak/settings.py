"""What an audit asks for, checked before any long work."""

import dataclasses
from typing import Literal

import numpy as np

DEFAULT_BATCH_SIZES = (10, 50, 100)


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """What an audit asks for.

    Attributes:
      batch_sizes: of the protocols; the first is the one that the verdict is about. None takes 10,
        50 and 100, as far as batches of one class are possible.
      purity_steps: how many batch compositions the purity sweep tries, from sorted to mixed.
      confidence: of the intervals.
      resamples: of the bootstrap.
      seed: of the shuffled orders, of random noise and of the bootstrap. Each model seed has a
        shuffled order of its own.
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
        if self.resamples < 100:
            raise ValueError(f"resamples={self.resamples!r}: give at least 100")
        if self.purity_steps != 0 and self.purity_steps < 2:
            raise ValueError(
                f"purity_steps={self.purity_steps!r}: give at least 2 (sorted and mixed), or 0 to "
                "leave the purity sweep out"
            )
        if self.interval not in ("auto", "seeds", "batches"):
            raise ValueError(
                f"interval={self.interval!r}: choose one of 'auto', 'seeds', 'batches'"
            )
        for size in self.batch_sizes or ():
            if isinstance(size, bool) or not isinstance(size, int) or size < 2:
                raise ValueError(
                    f"batch_sizes={self.batch_sizes!r}: give whole numbers of at least 2; in a "
                    "batch of 1 nothing is mixed"
                )
        if self.batch_sizes is not None and len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise ValueError(f"batch_sizes={self.batch_sizes!r}: one of them comes twice")
        if self.batch_sizes == ():
            raise ValueError("batch_sizes is empty: give some, such as 10, or None")

    def for_labels(self, labels: np.ndarray, what: str) -> "AuditSettings":
        """These settings with batch sizes that make sense for a test set.

        Args:
          labels: (n,).
          what: the test set in words, for errors.

        Raises:
          ValueError: a batch is larger than the test set, or in class order no batch could hold a
            single class.
        """
        largest = int(np.bincount(labels).max())
        if self.batch_sizes is None:
            fitting = tuple(size for size in DEFAULT_BATCH_SIZES if size <= largest)
            if not fitting and largest < 2:
                raise ValueError(
                    f"{what} has no class with two examples, so class order is an order like any "
                    "other and there is nothing to audit; use a larger split"
                )
            return dataclasses.replace(self, batch_sizes=fitting or (largest,))
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
