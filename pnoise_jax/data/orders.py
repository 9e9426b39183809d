"""The orders in which an evaluation visits its examples: pure functions of labels and a seed."""

import numpy as np

from pnoise_jax.registry import did_you_mean

EVALUATION_ORDERS = ("shuffled", "class_sorted", "stored")


def evaluation_order(labels: np.ndarray, order: str, *, seed: int) -> np.ndarray:
    """The order in which an evaluation visits its examples, (n,) indices, from labels: (n,).

    `shuffled` is a permutation determined by the seed. `class_sorted` visits one class after the
    other, each in the order of the data set, as when reading one folder per class; in this order,
    noise that mixes the batch leaks the label. `stored` is the order of the data set; if it was
    prepared from a published list, the order of that list. The seed affects only `shuffled`.

    Raises:
      ValueError: the order is unknown.
    """
    if order == "shuffled":
        return np.random.default_rng(seed).permutation(len(labels))
    if order == "class_sorted":
        return np.argsort(labels, kind="stable")
    if order == "stored":
        return np.arange(len(labels))
    raise ValueError(f"order={order!r} is unknown{did_you_mean(order, EVALUATION_ORDERS)}.")


def partly_sorted_order(
    labels: np.ndarray, *, mixed_share: float, batch_size: int, seed: int
) -> np.ndarray:
    """Class-sorted order in which a share of the examples is shuffled, (n,) indices.

    In each batch, ``round(mixed_share * batch_size)`` positions are drawn, and the examples at all
    drawn positions are shuffled among themselves. Every example still occurs exactly once. A share
    of 0 is `class_sorted`, and a share of 1 is a random permutation.

    Args:
      labels: (n,).
      mixed_share: the share of every batch to shuffle, in [0, 1].
      batch_size: the number of consecutive examples that form a batch.
      seed: the seed of the draws.

    Raises:
      ValueError: the share or the batch size is out of range.
    """
    if not 0 <= mixed_share <= 1:
        raise ValueError(f"mixed_share={mixed_share!r}: give a number in [0, 1]")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: give a whole number of at least 1")
    generator = np.random.default_rng(seed)
    order = evaluation_order(labels, "class_sorted", seed=seed)
    drawn = []
    for start in range(0, len(order), batch_size):
        size = min(batch_size, len(order) - start)
        places = generator.choice(size, round(mixed_share * size), replace=False)
        drawn.append(start + places)
    places = np.concatenate(drawn)
    order[places] = order[generator.permutation(places)]
    return order
