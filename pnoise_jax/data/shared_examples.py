"""Examples that two data sets, or two splits of one, have in common."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from pnoise_jax.data.datasets import Dataset

CHANCE = 0.01
LARGEST_READ = 20_000  # images together, beyond which what is stored is not compared


def can_compare_images(count: int) -> bool:
    """Whether `count_shared` compares images of two data sets that have ``count`` together."""
    return count <= LARGEST_READ


def count_shared(ours: Dataset, theirs: Dataset) -> int:
    """How many examples of a data set are among those of another, or of another split.

    Examples of one data set are compared by their place in its whole splits. Images are compared
    as they are stored, too: files by their bytes, arrays by their pixels. So a copy under another
    name or in another split is found, but not one that was encoded again. Of more than
    `LARGEST_READ` images together nothing is read. In one data set a share of equal images of up to
    `CHANCE` counts as none: some are black, say, and no choice of splits would part them.
    """
    contents = _count_contents(ours, theirs)
    if PurePath(ours.name) != PurePath(theirs.name):  # "digits/" names "digits"
        return contents
    return max(_count_places(ours, theirs), contents if contents > CHANCE * len(ours) else 0)


def _count_places(ours: Dataset, theirs: Dataset) -> int:
    first, second = _places(ours.parts), _places(theirs.parts)
    both = first.keys() & second
    return sum(len(np.intersect1d(first[whole], second[whole])) for whole in both)


def _count_contents(ours: Dataset, theirs: Dataset) -> int:
    if not can_compare_images(len(ours) + len(theirs)):
        return 0
    known = {_digest(image) for image in theirs.stored_images}
    return sum(_digest(image) in known for image in ours.stored_images)


def describe_copies(splits: Sequence[Dataset]) -> list[str]:
    """Sentences on images that the splits of a data set hold under several splits or classes.

    Compared as in `count_shared`; of more than `LARGEST_READ` images nothing is read.
    """
    if not can_compare_images(sum(map(len, splits))):
        return []
    places: dict[bytes, tuple[set[str], set[int]]] = {}
    for dataset in splits:
        for image, label in zip(dataset.stored_images, dataset.labels, strict=True):
            of_splits, of_classes = places.setdefault(_digest(image), (set(), set()))
            of_splits.add(dataset.split)
            of_classes.add(int(label))
    in_splits = [found for found, _ in places.values() if len(found) > 1]
    in_classes = [found for _, found in places.values() if len(found) > 1]
    sentences = []
    if in_splits:
        named = " and ".join(sorted(set.union(*in_splits)))
        sentences.append(
            f"images that are in several splits ({named}): {len(in_splits)}. An accuracy on one "
            "says little if another is trained on"
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
    """By whole split, the indices of the examples that the parts take from it."""
    by_split: dict[str, list[np.ndarray]] = {}
    for whole, part in parts:
        by_split.setdefault(whole, []).append(np.arange(part.start, part.stop))
    return {whole: np.concatenate(arrays) for whole, arrays in by_split.items()}


def _digest(image: Any) -> bytes:
    """Of the pixels of an image in memory, of the file of an encoded one."""
    is_array = isinstance(image, np.ndarray)
    digest = hashlib.blake2b(repr(image.shape).encode() if is_array else b"", digest_size=16)
    encoded = image if isinstance(image, bytes) else image.data
    digest.update(np.ascontiguousarray(image).data if is_array else encoded)
    return digest.digest()
