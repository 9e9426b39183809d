"""Batches of two domains side by side: source images with labels, target images without."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from pnoise_jax import data


def target_seed(seed: int) -> int:
    """Returns the seed of the target's stream.

    It differs from the source's seed, with which data sets of equal size would pair the same images
    in every epoch.
    """
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


class PairedBatches(Iterator[data.Batch]):
    """Iterates over {"image", "label", "target_image"}, one batch per step.

    Each domain is a separate stream of whole epochs, in its own order, so the smaller domain
    repeats more often and no example is favoured. The target's labels are dropped here, so no step
    sees them. Close it, or use `with`.
    """

    def __init__(self, source: data.BatchIterator, target: data.BatchIterator):
        """Pairs two streams that begin at the same step."""
        self._source, self._target = source, target

    def __next__(self) -> data.Batch:
        batch = next(self._source)
        return {**batch, "target_image": next(self._target)["image"]}

    def close(self) -> None:
        """Stops both streams."""
        try:
            self._source.close()
        finally:
            self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
