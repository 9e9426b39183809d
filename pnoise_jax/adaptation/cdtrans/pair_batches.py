"""Batches of pairs: a source image with its label, and a target image with its pseudo label."""

import dataclasses
import functools

import numpy as np

from pnoise_jax import data
from pnoise_jax.adaptation.paired_batches import PairedBatches


@dataclasses.dataclass(frozen=True, eq=False)
class PairOrder:
    """The example of one domain at each position of a run, for one set of pairs.

    Each epoch of pairs has its own order and drops an incomplete last batch. If there are fewer
    pairs than batch_size, a batch continues into the next epoch.

    Attributes:
      side: (pairs,), the indices of this domain's examples.
      batch_size: number of pairs in a step, over all hosts.
      first: the first step with these pairs.
      seed: seed of the orders; the same for both domains.
    """

    side: np.ndarray
    batch_size: int
    first: int
    seed: int

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Returns the examples (b,) at positions (b,), counted from the start of the run."""
        size = len(self.side)
        used = size - size % self.batch_size or size
        epochs, offsets = np.divmod(positions - self.first * self.batch_size, used)
        orders = {epoch: _order(self.seed, self.first, epoch, size) for epoch in set(epochs)}
        places = [orders[e][o] for e, o in zip(epochs, offsets, strict=True)]
        return self.side[places]


@functools.lru_cache(maxsize=8)
def _order(seed: int, first: int, epoch: int, size: int) -> np.ndarray:
    # The orders of whole epochs have spawn keys of two numbers, so this one cannot equal them.
    sequence = np.random.SeedSequence(seed, spawn_key=(2, first, int(epoch)))
    return np.random.default_rng(sequence).permutation(size)


class PairBatches(PairedBatches):
    """Iterates over {"image", "label", "target_image", "pseudo_label"}, one batch per step.

    Close it, or use `with`.
    """

    def __next__(self) -> data.Batch:
        source, target = next(self._source), next(self._target)
        return {**source, "target_image": target["image"], "pseudo_label": target["label"]}
