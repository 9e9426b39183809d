"""Converts labels of several kinds to class numbers, which are the columns of the logits."""

import unicodedata
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from pnoise_jax.counting import counted
from pnoise_jax.data import class_names as names_of_classes

_DEPTH = 8  # of nested data sets, such as a subset of a subset


def as_classes(labels: np.ndarray, class_names: Sequence[str] | None = None) -> np.ndarray:
    """Converts labels (n,), whole numbers or class names, to class numbers (n,) int32.

    Args:
      labels: integers from 0, or strings.
      class_names: the name of each column of the logits, in which names are looked up.

    Raises:
      ValueError: labels of another kind, negative labels, or unknown names.
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
    if labels.max() > np.iinfo(np.int32).max:
        raise ValueError(f"label {labels.max()}: give class numbers, the columns of the logits")
    if class_names is not None and labels.max() >= len(class_names):
        raise ValueError(
            f"label {labels.max()}: class_names has {counted(len(class_names), 'name')}, for the "
            f"labels 0 to {len(class_names) - 1}"
        )
    return labels.astype(np.int32)


def as_label_sets(sets: Any, count: int) -> np.ndarray:
    """Converts label sets to an array (n, k) int32, padded with -1.

    Args:
      sets: all correct class numbers of each example, in any order: lists, or an array padded with
        -1.
      count: number of examples.

    Raises:
      ValueError: another number of sets, an empty set, labels that are not whole numbers or are
        below -1, or sets that look multi-hot.
    """
    if not isinstance(sets, Sequence | np.ndarray) or len(sets) != count:
        size = f"{len(sets)} of them" if hasattr(sets, "__len__") else type(sets).__name__
        raise ValueError(f"label_sets: got {size}; give one for each of the {count} examples")
    rows = []
    for number, row in enumerate(sets):
        labels = np.asarray(row)
        if labels.ndim != 1 or (labels.size and not np.issubdtype(labels.dtype, np.integer)):
            raise ValueError(
                f"label_sets: the set of example {number} is {row!r}; give class numbers"
            )
        if labels.size and labels.min() < -1:
            raise ValueError(
                f"label_sets: the set of example {number} has the label {labels.min()}"
            )
        rows.append(np.unique(labels[labels >= 0]))
        if not rows[-1].size:
            raise ValueError(
                f"label_sets: the set of example {number} is empty, so no prediction would be "
                "correct: leave the example out, as ReaL does"
            )
    if all(_is_multi_hot(row) for row in sets):
        raise ValueError(
            f"label_sets: the set of example 0 is {sets[0]!r}, which looks multi-hot: give class "
            "numbers, [np.flatnonzero(row) for row in label_sets]"
        )
    padded = np.full((count, max(row.size for row in rows)), -1, np.int32)
    for number, row in enumerate(rows):
        padded[number, : row.size] = row
    return padded


def _is_multi_hot(row: Any) -> bool:
    """Whether a row has several entries, all of them zeros and ones."""
    labels = np.asarray(row)
    return labels.size > 1 and bool(np.isin(labels, (0, 1)).all())


def columns_of(apply: Any) -> np.ndarray | None:
    """Returns the labels of the columns of a scikit-learn estimator, or of a method of one.

    Returns None for anything else.
    """
    columns = getattr(getattr(apply, "__self__", apply), "classes_", None)
    if columns is None or isinstance(columns, list):  # a list means several outputs
        return None
    return np.asarray(columns)


def by_columns(
    labels: np.ndarray, columns: np.ndarray, class_names: Sequence[str] | None
) -> tuple[np.ndarray, Sequence[str] | None]:
    """Converts labels of the kind that an estimator was fitted on to its columns.

    Args:
      labels: (n,), of the same kind as those that the estimator was fitted on.
      columns: (classes,), the label of each column, as `columns_of` returns it.
      class_names: the caller's names of the columns, if any.

    Returns:
      The columns (n,), and their names. Labels that are strings stay strings, with the estimator's
      classes as names. Labels that cannot be converted here stay as they are.

    Raises:
      ValueError: a label that the estimator was not fitted on, or class_names that contradict the
        estimator's classes.
    """
    labels = np.asarray(labels)
    is_named = columns.dtype.kind in "USO" and all(isinstance(label, str) for label in columns)
    if is_named:
        if class_names is not None and list(class_names) != list(columns):
            raise ValueError(
                f"class_names begin with {', '.join(map(str, class_names[:3]))}, but the "
                f"estimator's classes_ with {', '.join(columns[:3])}: leave class_names out"
            )
        if labels.dtype.kind in "USO":
            return labels, list(columns)
        return labels, class_names
    if labels.dtype.kind not in "iub" or columns.dtype.kind not in "iub":
        return labels, class_names
    unknown = np.setdiff1d(labels, columns)
    if unknown.size:
        raise ValueError(
            f"label {unknown[0]}: the estimator was not fitted on it; its classes_ are "
            f"{', '.join(map(str, columns[:5]))}{', …' * (len(columns) > 5)}"
        )
    order = np.argsort(columns)
    return order[np.searchsorted(columns, labels, sorter=order)], class_names


def as_names(class_names: Any) -> list[str] | None:
    """Returns the name of each column of the logits, in order; numbers can be names, too.

    Raises:
      ValueError: class_names has no order, such as a set, or is not a collection of names.
    """
    if class_names is None:
        return None
    unordered = isinstance(class_names, str | bytes | Set | Mapping)
    if unordered or not hasattr(class_names, "__len__"):
        raise ValueError(
            f"class_names is a {type(class_names).__name__}: give a list, the name of each column "
            "of the logits in order (of a dict of names and numbers, sorted by the numbers)"
        )
    for name in class_names:
        if not isinstance(name, str | int | np.integer):
            raise ValueError(f"class_names has {name!r} in it: give names, as strings")
    return [str(name) for name in class_names]


def own_names(examples: Any) -> list[str] | None:
    """Returns the class names of a data set, or of a loader's data set; None if it has none.

    The attribute is `classes` or `class_names`, as in torchvision, Keras and this project. Subsets
    of a data set (`torch.utils.data.Subset`) keep the class numbers of the whole.
    """
    for _ in range(_DEPTH):
        for attribute in ("classes", "class_names"):
            names = getattr(examples, attribute, None)
            if isinstance(names, list | tuple | np.ndarray) and len(names):
                return list(names) if all(isinstance(name, str) for name in names) else None
        examples = getattr(examples, "dataset", None)
    return None


def in_columns(
    labels: np.ndarray, theirs: Sequence[str] | None, columns: Sequence[str] | None
) -> tuple[np.ndarray, str | None]:
    """Converts a data set's class numbers to columns of the logits.

    Args:
      labels: (n,), numbers of the data set's classes.
      theirs: the data set's class names; None if it has none.
      columns: the name of each column of the logits; None if unknown.

    Returns:
      The columns (n,), and a sentence for the reader if the numbers were changed or are in doubt,
      else None.

    Raises:
      ValueError: the data set has classes that are not columns; the error lists them.
    """
    if theirs is None or labels.max() >= len(theirs):
        return labels, None
    if columns is None:
        return labels, _doubt(theirs)
    try:
        matched = names_of_classes.match_classes(
            columns, theirs, whose="class_names and the examples", number=len(theirs)
        )
    except names_of_classes.DifferentClassesError as error:
        raise ValueError(
            f"{error}: give the name of each column of the logits as in the examples, or leave "
            "class_names out"
        ) from None
    if matched.kind == "unknown":
        return labels, "class_names are not those of the examples, so labels are compared by number"
    if (matched.order == np.arange(len(theirs))).all():
        return labels, None
    order = names_of_classes.describe_order(columns, theirs)
    note = f"class_names has the classes of the examples in another order ({order}), so labels are "
    return matched.order[labels].astype(np.int32), f"{note}matched by name"


def _doubt(theirs: Sequence[str]) -> str | None:
    """Returns a sentence if numbers were sorted as strings, as torchvision does for ImageNet-V2."""
    label = names_of_classes.misnumbered(theirs)
    if label is None:
        return None
    return (
        f"in the examples, label {label} is class {theirs[label]!r}, as if folders 0, 1, 2, … were "
        "sorted as strings: unless the model was trained with labels in this order, they are "
        "wrong. Give class_names, the name of each column of the logits ('0', '1', …), to match "
        "them by name"
    )


def _numbers_of_names(labels: np.ndarray, class_names: Sequence[str] | None) -> np.ndarray:
    if class_names is None:
        raise ValueError(
            f"labels are names, such as {str(labels[0])!r}: give class_names=, the name of each "
            "column of the logits in order, so that they can be compared"
        )
    numbers = {_composed(name): number for number, name in enumerate(class_names)}
    if len(numbers) < len(class_names):
        raise ValueError("class_names: some names occur twice")
    composed = [_composed(label) for label in labels]
    unknown = sorted({*composed} - numbers.keys())
    if unknown:
        raise ValueError(
            f"label {unknown[0]!r} is not in class_names ({counted(len(unknown), 'such name')}; "
            f"known are {', '.join(list(numbers)[:5])}{', …' * (len(numbers) > 5)})"
        )
    return np.array([numbers[label] for label in labels], np.int32)


def _composed(name: object) -> str:
    """Normalises a name, so that an é equals an e with a combining accent."""
    return unicodedata.normalize("NFC", str(name))
