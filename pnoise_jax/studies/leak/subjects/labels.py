"""Labels as people have them, made into class numbers: the columns of the logits."""

from collections.abc import Sequence

import numpy as np


def as_classes(labels: np.ndarray, class_names: Sequence[str] | None = None) -> np.ndarray:
    """Class numbers (n,) int32 from labels (n,): whole numbers, or names of classes.

    Args:
      labels: integers from 0, or strings.
      class_names: the name of each column of the logits; names are looked up in it.

    Raises:
      ValueError: labels of another kind, negative ones, or names that are not known.
    """
    labels = np.asarray(labels)
    if not len(labels):
        raise ValueError("examples: there are none")
    if labels.dtype.kind in "USO" and all(isinstance(label, str) for label in labels):
        return _numbers_of_names(labels, class_names)
    if not np.issubdtype(labels.dtype, np.integer):
        fix = "give class numbers as integers, such as labels.astype(int)"
        if labels.dtype.kind == "f" and not np.all(labels == np.round(labels)):
            fix = "an audit is of classification; give class numbers as integers"
        raise ValueError(f"labels are {labels.dtype}, such as {labels[0]}: {fix}")
    if labels.min() < 0:
        raise ValueError(f"labels go down to {labels.min()}: give class numbers from 0")
    if class_names is not None and labels.max() >= len(class_names):
        raise ValueError(
            f"label {labels.max()}: class_names has {len(class_names)} names, for labels 0 to "
            f"{len(class_names) - 1}"
        )
    return labels.astype(np.int32)


def _numbers_of_names(labels: np.ndarray, class_names: Sequence[str] | None) -> np.ndarray:
    if class_names is None:
        raise ValueError(
            f"labels are names, such as {str(labels[0])!r}: give class_names=, the name of each "
            "column of the logits in order, so that they can be compared"
        )
    numbers = {name: number for number, name in enumerate(class_names)}
    if len(numbers) < len(class_names):
        raise ValueError("class_names: some names come twice")
    unknown = sorted({str(label) for label in labels} - numbers.keys())
    if unknown:
        raise ValueError(
            f"label {unknown[0]!r} is not in class_names ({len(unknown)} such names; known are "
            f"{', '.join(list(numbers)[:5])}, …)"
        )
    return np.array([numbers[str(label)] for label in labels], np.int32)
