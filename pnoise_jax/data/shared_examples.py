"""Counts examples that two data sets, or two splits of one data set, have in common."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from pnoise_jax.data.datasets import Dataset

CHANCE = 0.01
LARGEST_READ = 20_000  # images in total; if there are more, stored images are not compared


def can_compare_images(count: int) -> bool:
    """Whether `count_shared` compares images of two data sets that have ``count`` together."""
    return count <= LARGEST_READ


def count_shared(ours: Dataset, theirs: Dataset) -> int:
    """The number of examples in `ours` that are also in `theirs`.

    Within one data set, examples are compared by their position in the whole splits. In addition,
    stored images are compared: files by their bytes, arrays by their pixels. This finds a copy
    under another name or in another split, unless it was encoded again. If both have more than
    `LARGEST_READ` images in total, no image is read. Within one data set, equal images are ignored
    if their share of `ours` is at most `CHANCE`: some may be all black, for example, and no choice
    of splits would separate them. Two directories that have other files under the same name are
    two data sets.
    """
    contents = _count_contents(ours, theirs)
    if not _are_one(ours, theirs):
        return contents
    return max(_count_places(ours, theirs), contents if contents > CHANCE * len(ours) else 0)


def _are_one(ours: Dataset, theirs: Dataset) -> bool:
    """Whether both are of the same data set, so that equal positions are equal examples."""
    if None not in (ours.content, theirs.content) and ours.content != theirs.content:
        return False
    return PurePath(ours.name) == PurePath(theirs.name)  # "digits/" and "digits" are the same


def _count_places(ours: Dataset, theirs: Dataset) -> int:
    first, second = _places(ours.parts), _places(theirs.parts)
    both = first.keys() & second
    return sum(len(np.intersect1d(first[whole], second[whole])) for whole in both)


def _count_contents(ours: Dataset, theirs: Dataset) -> int:
    if not can_compare_images(len(ours) + len(theirs)):
        return 0
    known = {_digest(image) for image in theirs.stored_images}
    return sum(_digest(image) in known for image in ours.stored_images)


def count_repeated(dataset: Dataset) -> int:
    """The number of examples that a split has too many, because its parts overlap."""
    return sum(len(x) - len(np.unique(x)) for x in _places(dataset.parts).values())


def describe_copies(splits: Sequence[Dataset]) -> list[str]:
    """Sentences about images that occur in several splits, or in several classes, of a data set.

    If there is only one split, also about those that occur in it several times, as its parts may
    share them. Stored images are compared as in `count_shared`; if there are more than
    `LARGEST_READ`, none is read, and the sentence says so.
    """
    if not can_compare_images(sum(map(len, splits))):
        return [f"no copies of images were looked for, as there are more than {LARGEST_READ:,}"]
    places: dict[bytes, list[tuple[str, int]]] = {}
    for dataset in splits:
        for image, label in zip(dataset.stored_images, dataset.labels.tolist(), strict=True):
            places.setdefault(_digest(image), []).append((dataset.split, label))
    names_and_labels = [tuple(map(set, zip(*x, strict=True))) for x in places.values()]
    in_splits = [names for names, _ in names_and_labels if len(names) > 1]
    in_classes = [labels for _, labels in names_and_labels if len(labels) > 1]
    in_class = sum(map(len, places.values())) - sum(len(labels) for _, labels in names_and_labels)
    sentences = []
    if in_splits:
        named = " and ".join(sorted(set.union(*in_splits)))
        sentences.append(
            f"images that are in several splits ({named}): {len(in_splits)}. Accuracy on one of "
            "these splits says little about a model trained on another"
        )
    if in_class and len(splits) == 1:
        name = splits[0].split
        sentences.append(
            f"images that are copies of others in their class: {in_class}. Parts of the split, "
            f"such as {name}[:90%] and {name}[90%:], may share them"
        )
    if in_classes:
        names = splits[0].class_names
        first = [names[n] if names else str(n) for n in sorted(in_classes[0])]
        sentences.append(
            f"images that are in several classes ({' and '.join(first)}, for instance): "
            f"{len(in_classes)}. All but one of their labels are wrong"
        )
    return sentences


def _places(parts: Iterable[tuple[str, slice]]) -> dict[str, np.ndarray]:
    """For each whole split, the indices of the examples that the parts take from it."""
    by_split: dict[str, list[np.ndarray]] = {}
    for whole, part in parts:
        by_split.setdefault(whole, []).append(np.arange(part.start, part.stop))
    return {whole: np.concatenate(arrays) for whole, arrays in by_split.items()}


def _digest(image: Any) -> bytes:
    """A digest of the pixels of an array, or of the bytes of an encoded file."""
    is_array = isinstance(image, np.ndarray)
    digest = hashlib.blake2b(repr(image.shape).encode() if is_array else b"", digest_size=16)
    encoded = image if isinstance(image, bytes) else image.data
    digest.update(np.ascontiguousarray(image).data if is_array else encoded)
    return digest.digest()
