"""How much the order of a test set reveals about labels: the classes of batch mates.

The numbers come from labels alone, without a model or images. They bound what noise that mixes a
batch could learn about labels; they do not show what it does learn.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pnoise_jax import evaluation

BATCH_SIZES = (10, 16, 64)
_MOST_CLASSES = 10**6  # in a list: more than any real data set, and few enough for an array

# Images per class in the validation split of VisDA-2017, in the order of the published list, which
# is sorted by class.
VISDA_VALIDATION = (3646, 3475, 4690, 10401, 4691, 2075, 5796, 4000, 4549, 2281, 4236, 5548)


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The classes within the batches of one order; shares are from 0 to 1.

    Attributes:
      name: name of the test set.
      n, classes: number of images and number of classes.
      pure: by batch size, the share of batches whose images are all of one class.
      same: by batch size, the mean share of an image's batch mates that are of its class; None if
        no image has batch mates.
      shuffled: the expected value of `same` in random order, for any batch size; None if there is
        only one image.
      following: the share of images whose next image in the order, with the first after the last,
        is of the same class. A cyclic shift by one mixes these pairs, for any batch size.
    """

    name: str
    n: int
    classes: int
    pure: dict[int, float]
    same: dict[int, float | None]
    shuffled: float | None
    following: float


def neighbours(
    labels: np.ndarray, *, name: str, batch_sizes: Sequence[int] = BATCH_SIZES
) -> Neighbours:
    """Counts the neighbours of a test set in the order of its labels.

    Args:
      labels: (n,) integers of at least 0, in the order in which images are evaluated.
      name: name of the test set.
      batch_sizes: numbers of consecutive images in a batch; the last batch may be smaller.

    Raises:
      ValueError: there are no labels, or a batch size is below 1.
    """
    if not len(labels):
        raise ValueError(f"{name} has no labels: give at least one")
    for size in batch_sizes:
        if size < 1:
            raise ValueError(
                f"batch_sizes={tuple(batch_sizes)}: {size} is below 1; give sizes of at least 1"
            )
    counts = np.bincount(labels).astype(np.int64)
    n = len(labels)
    pure, same = {}, {}
    for size in batch_sizes:
        batches = evaluation.in_batches(np.arange(n), size)
        starts = np.arange(0, n, size)
        lowest, highest = (ufunc.reduceat(labels, starts) for ufunc in (np.minimum, np.maximum))
        pure[size] = float(np.mean(lowest == highest))
        same[size] = evaluation.purity(labels, batches)
    return Neighbours(
        name=name,
        n=n,
        classes=int((counts > 0).sum()),
        pure=pure,
        same=same,
        shuffled=float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else None,
        following=float(np.mean(labels == np.roll(labels, -1))),
    )


def known_orders() -> dict[str, np.ndarray]:
    """Returns the labels of public test sets whose order is known without their files, by name.

    For Office-Home and DomainNet only totals and ranges are published, so they need the lists.
    """
    return {
        "VisDA-2017 validation, listed": sorted_labels(VISDA_VALIDATION),
        "ImageNet validation, sorted": sorted_labels([50] * 1000),
        "ImageNet-V2, sorted": sorted_labels([10] * 1000),
    }


def sorted_labels(counts: Sequence[int]) -> np.ndarray:
    """Returns labels in class order, given the number of images per class."""
    return np.repeat(np.arange(len(counts)), counts)


def read_list(file: str | os.PathLike) -> np.ndarray:
    """Reads the labels of a published list, in its order; each line is ``path label``.

    Raises:
      ValueError: a line has no label or one that is not below 1 000 000, or there are no lines.
      OSError: the file cannot be read.
    """
    labels = []
    try:
        text = Path(file).expanduser().read_text("utf-8", "replace")
    except OSError as error:
        raise OSError(
            f"{file} cannot be read ({error.strerror or error}): give the path of a list of images "
            "and labels"
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdecimal():
            raise ValueError(
                f"{file}, line {number}: {line[:80]!r} does not end with a space and a label, a "
                "whole number: give a list of images and labels"
            )
        if len(label.lstrip("0")) > 9 or int(label) >= _MOST_CLASSES:
            raise ValueError(
                f"{file}, line {number}: label {label[:20]} is not below {_MOST_CLASSES:,}: give a "
                "list whose labels number the classes from 0"
            )
        labels.append(int(label))
    if not labels:
        raise ValueError(f"{file} lists no images: give a list of images and labels")
    return np.array(labels)
