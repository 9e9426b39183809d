"""When a prediction is correct: the one place where predictions meet labels.

An image has one label, or a set of labels, each of which is correct (as ReaL has it). Its rank,
its likelihood and whether it is counted as correct follow from the label of the set that the model
prefers. Where images have sets, `labels` are the original labels, by which orders sort them.

Sets are (n, k) int, each padded with -1, and at least one label in each; None where every image
has its label alone.
"""

from typing import Any

import numpy as np


def preferred_labels(xp: Any, logits: Any, labels: Any, label_sets: Any) -> tuple[Any, Any]:
    """Of each example's correct labels the likeliest, and the logits of all.

    Args:
      xp: numpy, or jax.numpy.
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
    # Of equal logits the smallest label, as argmax takes it.
    is_best = (members == members.max(axis=1, keepdims=True)) & (label_sets >= 0)
    last = logits.shape[1] - 1  # where a logit is not a number, which none is equal to
    best = xp.where(is_best, label_sets, last).min(axis=1)
    return best.astype(labels.dtype), members


def is_correct(
    predicted: np.ndarray, labels: np.ndarray, label_sets: np.ndarray | None
) -> np.ndarray:
    """Whether each predicted class, (..., n), is a correct label: (..., n) bool."""
    if label_sets is None:
        return predicted == labels
    return (predicted[..., None] == label_sets).any(axis=-1)


def as_single_labels(
    predicted: np.ndarray, labels: np.ndarray, label_sets: np.ndarray | None
) -> np.ndarray:
    """One label for each example, which a prediction equals if and only if it is correct, (n,).

    For metrics, which compare predictions (n,) with single labels: the predicted class where it is
    correct, else the first of the correct labels.
    """
    if label_sets is None:
        return labels
    first = label_sets[np.arange(len(labels)), (label_sets >= 0).argmax(axis=1)]
    return np.where(is_correct(predicted, labels, label_sets), predicted, first)
