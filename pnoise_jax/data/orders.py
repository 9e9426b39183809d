"""Orders in which an evaluation visits its examples: pure functions of labels and a seed."""

import numpy as np

from pnoise_jax.registry import did_you_mean

EVALUATION_ORDERS = ("shuffled", "class_sorted", "stored")


def evaluation_order(labels: np.ndarray, order: str, *, seed: int) -> np.ndarray:
    """The order in which an evaluation visits its examples, (n,) indices, from labels: (n,).

    `shuffled` is a permutation fixed by the seed. `class_sorted` puts the classes one after the
    other, each in the data set's order: what reading a folder per class gives, and where noise
    over the batch leaks the label. `stored` is the data set's own order, of a published list where
    the data set was prepared from one. The seed changes neither.

    Raises:
      ValueError: another order.
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
    """Class order in which a share of every batch has changed places with others, (n,) indices.

    In each batch ``round(mixed_share * batch_size)`` places are drawn, and the examples at all
    drawn places are shuffled among themselves. So every example still comes exactly once, a share
    of 0 is `class_sorted`, and a share of 1 is a permutation.

    Args:
      labels: (n,).
      mixed_share: in [0, 1].
      batch_size: consecutive examples that form a batch.
      seed: of the draws.

    Raises:
      ValueError: a share or a batch size out of range.
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
