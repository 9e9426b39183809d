"""Selects a fixed number of examples of each class."""

import numpy as np


def draw_per_class(
    labels: np.ndarray, count: int, *, num_classes: int, seed: int, field: str
) -> np.ndarray:
    """Draws `count` examples of every class; returns their indices, ascending.

    The examples are shuffled with the seed, and the first `count` of each class are taken.

    Args:
      labels: (n,), in 0..num_classes-1.
      count: the number of examples per class.
      num_classes: the number of classes, whether or not they occur.
      seed: the seed of the shuffle.
      field: the config field of `count`, for error messages.

    Raises:
      ValueError: the count is below 1, or a class, which is named, has fewer examples.
    """
    if type(count) is not int or count < 1:
        raise ValueError(f"{field}={count!r}: give a whole number of at least 1")
    sizes = np.bincount(np.asarray(labels, np.int64), minlength=num_classes)
    fewest = int(sizes.min())
    if fewest < count:
        has, fix = "no examples", "set a larger data.train_split"
        if fewest:
            has, fix = f"only {fewest} examples", f"give at most {fewest}, or {fix}"
        raise ValueError(f"{field}={count}: class {sizes.argmin()} has {has}; {fix}")
    # The spawn key makes the order independent of the orders of the training epochs.
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    order = generator.permutation(len(labels))
    return np.sort(
        np.concatenate([order[labels[order] == each][:count] for each in range(num_classes)])
    )
