"""The settings of an audit, checked before any long work."""

import dataclasses
import math
import numbers
from typing import Literal

import numpy as np

from pnoise_jax.counting import counted

DEFAULT_BATCH_SIZES = (10, 50, 100)
MIN_BATCHES = 5  # in a protocol; an interval over fewer says nothing
MIN_ORDERS = 20
PARTS_OF_LEVEL = 6  # tests of the interventions: three kinds of target, two directions
_PLAIN = {"confidence": float, "equivalence": float}
_PLAIN |= dict.fromkeys(("orders", "purity_steps", "resamples", "seed"), int)


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """The settings of an audit.

    Attributes:
      batch_sizes: batch sizes of the protocols. The verdict on a noise is about the size at which
        it is most serious, the first of them if several are; the purity sweep uses the first. None
        uses those of 10, 50 and 100 for which batches of one class are possible.
      orders: number of random orders to score, the same ones for all models. Half as many orders
        permute examples within classes, and a quarter as many are sorted by the model's own
        predictions.
      equivalence: in points of top-1; an effect counts as none if its whole interval is smaller.
      purity_steps: number of batch compositions in the purity sweep, from sorted to mixed.
      confidence: confidence of the intervals; 1 minus it is the level of the tests.
      resamples: number of resamples in the interventions' permutation tests; more are used if the
        confidence needs them.
      seed: seeds the random orders, the random noise, the interventions and their resamples.
      interval: what intervals cover: "seeds" (and examples predicted in one batch), "batches" (a
        single model, or these models alone), or "auto": seeds if there are two or more.
      mixed_batches: whether class-sorted batches may contain more than one class.
    """

    batch_sizes: tuple[int, ...] | None = None
    orders: int = 40
    equivalence: float = 1.0
    purity_steps: int = 6
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0
    interval: Literal["auto", "seeds", "batches"] = "auto"
    mixed_batches: bool = False

    def __post_init__(self):
        if not _is_number(self.confidence) or not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence!r}: give a number between 0 and 1")
        if not _is_int(self.resamples) or self.resamples < 100:
            raise ValueError(f"resamples={self.resamples!r}: give a whole number of at least 100")
        if not _is_int(self.orders) or self.orders < MIN_ORDERS:
            raise ValueError(
                f"orders={self.orders!r}: give a whole number of at least {MIN_ORDERS}; fewer "
                "random orders cannot show at a level of 5 % that class order differs from them"
            )
        if not _is_number(self.equivalence) or not 0 < self.equivalence <= 100:
            raise ValueError(
                f"equivalence={self.equivalence!r}: give a number of points above 0, such as 1.0"
            )
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
        for name, kind in _PLAIN.items():  # of NumPy's numbers, which JSON does not take
            object.__setattr__(self, name, kind(getattr(self, name)))
        if self.batch_sizes is None:
            return
        if isinstance(self.batch_sizes, list):
            object.__setattr__(self, "batch_sizes", tuple(self.batch_sizes))
        if not isinstance(self.batch_sizes, tuple) or not self.batch_sizes:
            raise ValueError(
                f"batch_sizes={self.batch_sizes!r}: give a tuple of sizes, such as (10, 50), or "
                "None"
            )
        for size in self.batch_sizes:
            if not _is_int(size) or size < 2:
                raise ValueError(
                    f"batch_sizes={self.batch_sizes!r}: give whole numbers of at least 2; in a "
                    "batch of 1 nothing is mixed"
                )
        if len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise ValueError(f"batch_sizes={self.batch_sizes!r}: one size is given twice")
        object.__setattr__(self, "batch_sizes", tuple(map(int, self.batch_sizes)))

    def for_labels(self, labels: np.ndarray, what: str) -> "AuditSettings":
        """Returns these settings with batch sizes that are possible for a test set.

        Args:
          labels: (n,).
          what: what errors call the test set.

        Raises:
          ValueError: the labels are all the same; the test set is too small for intervals, or has
            no class with two examples; or a batch size is larger than the largest class (unless
            mixed_batches), or makes too few batches.
        """
        counts = np.bincount(labels)
        if len(labels) != 1 and np.count_nonzero(counts) < 2:
            raise ValueError(
                f"all {len(labels)} examples of {what} have the same label, so there is "
                "no class order to try; give examples of at least two classes"
            )
        largest, examples = int(counts.max()), counted(len(labels), "example")
        most = len(labels) // MIN_BATCHES
        if largest < 2 or most < 2:
            raise ValueError(
                f"{what} has {examples}, at most {largest} of one class: an audit "
                f"needs a class of at least 2, and at least {2 * MIN_BATCHES} examples; use a "
                "larger split"
            )
        if self.batch_sizes is None:
            fitting = tuple(k for k in DEFAULT_BATCH_SIZES if k <= min(largest, most))
            return dataclasses.replace(self, batch_sizes=fitting or (min(largest, most),))
        for size in self.batch_sizes:
            if size > len(labels):
                raise ValueError(
                    f"batch_sizes={size}: {what} has only {examples}; use a smaller "
                    "batch or a larger split"
                )
            if size > largest and not self.mixed_batches:
                raise ValueError(
                    f"batch_sizes={size}: class-sorted batches of one class are impossible, as the "
                    f"largest class of {what} has {counted(largest, 'example')}; use at most "
                    f"{largest}, or allow mixed_batches"
                )
            if size > most:
                raise ValueError(
                    f"batch_sizes={size}: {what} with {examples} gives fewer than "
                    f"{MIN_BATCHES} batches, too few for an interval; use at most {most}"
                )
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes, once they are known: after `for_labels`."""
        if self.batch_sizes is None:
            raise ValueError("batch_sizes=None: call for_labels first")
        return self.batch_sizes

    @property
    def enough_resamples(self) -> int:
        """`resamples`, or more if the level of the interventions needs them."""
        return max(self.resamples, math.ceil(10 * PARTS_OF_LEVEL / self.level))

    @property
    def level(self) -> float:
        """The level of the tests: how often each may find an effect that is not there."""
        return 1 - self.confidence

    def over_seeds(self, seeds: int) -> bool:
        """Whether intervals are over seeds.

        Raises:
          ValueError: interval is "seeds", and there are fewer than two.
        """
        if self.interval == "seeds" and seeds < 2:
            raise ValueError(
                f"interval='seeds' needs at least 2 seeds, and there is {seeds}; give more seeds, "
                "or interval='batches', which says nothing about other seeds"
            )
        return seeds > 1 and self.interval != "batches"


def _is_int(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
