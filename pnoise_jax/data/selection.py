"""Some examples of a data set: those of given indices, or so many of each class."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pnoise_jax.data.datasets import Dataset
from pnoise_jax.data.image.images import Image


def select(dataset: Dataset, indices: np.ndarray) -> Dataset:
    """The data set with some of its examples, its classes numbered as before.

    Args:
      dataset: n examples.
      indices: (m,) of these, in the order of the new data set.
    """
    labels = dataset.labels[indices]
    labels.flags.writeable = False
    return dataclasses.replace(dataset, labels=labels, images=_Selected(dataset.images, indices))


class _Selected(Sequence):
    """Images by their position among those selected."""

    def __init__(self, images: Sequence[Image] | np.ndarray, indices: np.ndarray):
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Image:
        return self._images[int(self._indices[i])]


def draw_per_class(labels: np.ndarray, count: int, *, seed: int, field: str) -> np.ndarray:
    """Draws so many examples of every class that occurs; indices, ascending.

    The examples are visited in an order drawn by the seed, and of each class the first are taken.

    Args:
      labels: (n,).
      count: of each class.
      seed: of the order.
      field: the config's field of the count, for errors.

    Raises:
      ValueError: a count below 1, or a class has fewer examples; names it.
    """
    if type(count) is not int or count < 1:
        raise ValueError(f"{field}={count!r}: give a whole number of at least 1")
    classes, sizes = np.unique(labels, return_counts=True)
    if sizes.min() < count:
        smallest = classes[sizes.argmin()]
        raise ValueError(
            f"{field}={count}: class {smallest} has only {sizes.min()} examples; give at most "
            f"{sizes.min()}, or set a larger data.train_split"
        )
    # The spawn key keeps the order apart from those of the training's epochs.
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    order = generator.permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == each][:count] for each in classes]))
