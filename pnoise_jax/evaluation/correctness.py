"""Decides when a prediction is correct: the only place where predictions are compared with labels.

An image has one label, or a set of labels that are all correct, as in ReaL. The rank of a
prediction, and whether it is correct, follow from the label of the set that the model prefers; the
likelihood is that of the whole set. If images have sets, `labels` are the original labels, by which
orders are sorted.

Sets are (n, k) int, padded with -1, with at least one label each; or None if every image has one
label.
"""

from typing import Any

import numpy as np


def preferred_labels(xp: Any, logits: Any, labels: Any, label_sets: Any) -> tuple[Any, Any]:
    """Returns the likeliest correct label of each example, and the logits of all correct labels.

    Args:
      xp: numpy or jax.numpy.
      logits: (n, classes).
      labels: (n,).
      label_sets: (n, k) or None.

    Returns:
      Labels (n,), and the logits (n, k) of all correct labels, minus infinity for padding.
    """
    if label_sets is None:
        return labels, xp.take_along_axis(logits, labels[:, None], axis=1)
    members = xp.take_along_axis(logits, xp.maximum(label_sets, 0), axis=1)
    members = xp.where(label_sets < 0, -xp.inf, members)
    # Among equal logits, choose the smallest label, as argmax does.
    is_best = (members == members.max(axis=1, keepdims=True)) & (label_sets >= 0)
    last = logits.shape[1] - 1  # for NaN, which equals nothing
    best = xp.where(is_best, label_sets, last).min(axis=1)
    return best.astype(labels.dtype), members


def is_correct(
    predicted: np.ndarray, labels: np.ndarray, label_sets: np.ndarray | None
) -> np.ndarray:
    """Returns whether each predicted class, (..., n), is a correct label: (..., n) bool."""
    if label_sets is None:
        return predicted == labels
    return (predicted[..., None] == label_sets).any(axis=-1)


def as_single_labels(
    predicted: np.ndarray, labels: np.ndarray, label_sets: np.ndarray | None
) -> np.ndarray:
    """Returns one label per example, (n,), equal to the prediction if and only if it is correct.

    This is for metrics, which compare predictions (n,) with single labels. The label is the
    predicted class if that is correct, else the first of the correct labels.
    """
    if label_sets is None:
        return labels
    first = label_sets[np.arange(len(labels)), (label_sets >= 0).argmax(axis=1)]
    return np.where(is_correct(predicted, labels, label_sets), predicted, first)
