"""Measures what the composition of batches reveals about labels, without any images."""

from typing import cast

import numpy as np
import scipy


def in_batches(order: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns the number of each example's batch, (n,), for an order (n,) of indices.

    Raises:
      ValueError: the order does not contain each index once.
    """
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError(f"order: give each of the indices 0 to {len(order) - 1} once")
    batches = np.empty(len(order), np.int32)
    batches[order] = np.arange(len(order)) // batch_size
    return batches


def purity(labels: np.ndarray, batches: np.ndarray) -> float | None:
    """The mean share of an example's batch mates that have its label; None if there are no mates.

    Args:
      labels: (n,).
      batches: (n,), the number of each example's batch.
    """
    same_label, size = _label_counts(labels, batches), np.bincount(batches)[batches]
    has_mates = size > 1
    if not has_mates.any():
        return None
    return float(np.mean((same_label[has_mates] - 1) / (size[has_mates] - 1)))


def label_bits_per_batch(labels: np.ndarray, batches: np.ndarray) -> float:
    """A lower bound of the bits that a batch's labels reveal about one another, mean over batches.

    It is the log-likelihood ratio, to base 2, of two models of the labels in a batch. In the first,
    labels are independent, each drawn from the class frequencies, as in a shuffled test set. In the
    second, each batch has a home class: a share of its labels is of that class, and the rest are
    drawn as before. The share is fitted by maximum likelihood. The expected ratio is the labels'
    total correlation under the second model, and a lower bound of it for any other source (Gibbs'
    inequality). In pure batches of k it is (k - 1) times the entropy of the label: one label of the
    batch determines all others.

    Args:
      labels: (n,) in 0..classes-1.
      batches: (n,), the number of each example's batch.
    """
    frequencies = np.bincount(labels) / len(labels)
    pairs, counts = np.unique(np.stack([batches, labels]), axis=1, return_counts=True)
    batch_of, label_of = pairs
    home = frequencies[label_of]
    size = np.bincount(batches)
    others = size[batch_of] - counts
    absent = 1 - np.bincount(batch_of, weights=home)

    def bits(share: float) -> float:
        # A class that is not in the batch could be its home class, too.
        with np.errstate(divide="ignore"):
            total = np.log(np.maximum(absent, 0)) + scipy.special.xlogy(size, 1 - share)
        log = scipy.special.xlogy(others, 1 - share) + counts * np.log(1 - share + share / home)
        np.logaddexp.at(total, batch_of, np.log(home) + log)
        return float(np.mean(np.maximum(total, -700)) / np.log(2))

    inner = cast(
        scipy.optimize.OptimizeResult,
        scipy.optimize.minimize_scalar(lambda share: -bits(share), bounds=(0, 1), method="bounded"),
    )
    return max(0.0, bits(float(inner.x)), bits(1.0))  # 0 bits at share 0


def _label_counts(labels: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Counts the examples of each example's batch with its label, itself included, (n,)."""
    classes = labels.max() + 1
    keys = batches.astype(np.int64) * classes + labels
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return counts[inverse]
