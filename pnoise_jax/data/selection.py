"""A fixed number of examples of each class."""

import numpy as np


def draw_per_class(
    labels: np.ndarray, count: int, *, num_classes: int, seed: int, field: str
) -> np.ndarray:
    """Draws `count` examples of every class; indices, ascending.

    The examples are visited in an order drawn by the seed, and of each class the first are taken.

    Args:
      labels: (n,), of 0..num_classes-1.
      count: of each class.
      num_classes: how many classes there are, whether or not they occur.
      seed: of the order.
      field: the config's field of the count, for errors.

    Raises:
      ValueError: a count below 1, or a class has fewer examples; names it.
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
    # The spawn key keeps the order apart from those of the training's epochs.
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    order = generator.permutation(len(labels))
    return np.sort(
        np.concatenate([order[labels[order] == each][:count] for each in range(num_classes)])
    )
