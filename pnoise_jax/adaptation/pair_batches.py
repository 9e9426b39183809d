"""Batches of pairs: a source image with its label, and a target image with its pseudo label."""

import dataclasses
import functools

import numpy as np

from pnoise_jax import data
from pnoise_jax.adaptation.paired_batches import PairedBatches


@dataclasses.dataclass(frozen=True, eq=False)
class PairOrder:
    """Which example of one side is at each position of a run, as long as its pairs stay the same.

    Every epoch of pairs has its own order and drops an incomplete last batch. If there are fewer
    pairs than a batch holds, the batch continues into the next epoch.

    Attributes:
      side: (pairs,), the examples of one side.
      batch_size: of a step, over all hosts.
      first: the first step with these pairs.
      seed: of the orders; the same for both sides.
    """

    side: np.ndarray
    batch_size: int
    first: int
    seed: int

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The examples (b,) at positions (b,), counted from the first step of the run."""
        size = len(self.side)
        used = size - size % self.batch_size or size
        epochs, offsets = np.divmod(positions - self.first * self.batch_size, used)
        orders = {epoch: _order(self.seed, self.first, epoch, size) for epoch in set(epochs)}
        places = [orders[e][o] for e, o in zip(epochs, offsets, strict=True)]
        return self.side[places]


@functools.lru_cache(maxsize=8)
def _order(seed: int, first: int, epoch: int, size: int) -> np.ndarray:
    # The spawn key keeps it apart from the orders of whole epochs, which have two numbers.
    sequence = np.random.SeedSequence(seed, spawn_key=(2, first, int(epoch)))
    return np.random.default_rng(sequence).permutation(size)


class PairBatches(PairedBatches):
    """{"image", "label", "target_image", "pseudo_label"} per step; close it, or use `with`."""

    def __next__(self) -> data.Batch:
        source, target = next(self._source), next(self._target)
        return {**source, "target_image": target["image"], "pseudo_label": target["label"]}
