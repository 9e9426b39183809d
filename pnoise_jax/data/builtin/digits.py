"""scikit-learn's handwritten digits as a TFDS data set: small, offline, the same everywhere."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

TEST_PER_CLASS = 100

_DESCRIPTION = """\
The 1797 handwritten digits that ship with scikit-learn, 8x8 grey pixels with values 0..16, stored
as PNG (value v becomes the byte round(v * 255 / 16)). `test` contains exactly 100 examples of each
class, `train` the other 797 (74 to 83 per class). `id` is the row in scikit-learn's arrays.

The split of each example is determined by the SHA-256 of its row number, class by class. In both
splits, the examples are stored in rounds, each with at most one example of every class, so every
prefix such as `train[:300]` is as balanced as the sizes of the classes allow.
"""


class Digits(tfds.core.GeneratorBasedBuilder):
    """Builder of the `digits` data set: image (8, 8, 1) uint8, label 0..9, id 0..1796.

    Source: sklearn.datasets.load_digits, the test part of the UCI optical recognition of
    handwritten digits data set.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "1797 digits; stratified split, 100 test examples of each class."
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Scalar(np.int32),
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the stored order, split_ids(), is part of the data set
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # the data ships with scikit-learn: nothing to download
        from sklearn.datasets import load_digits  # takes a second to import, only needed here

        images, labels = load_digits(return_X_y=True)
        return {
            split: self._generate_examples(images, labels, ids)
            for split, ids in split_ids(labels).items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, ids: list[int]
    ) -> Iterator[tuple[int, dict]]:
        for position, i in enumerate(ids):
            example = {
                "id": i,
                "image": encode_counts(images[i].reshape(8, 8)),
                "label": int(labels[i]),
            }
            yield position, example


def split_ids(labels: np.ndarray) -> dict[str, list[int]]:
    """The rows of each split, in stored order, from labels: (n,) integers.

    Within a class, the rows are ranked by a hash of their number. The first `TEST_PER_CLASS` are
    `test`, the others `train`. A split is sorted by (rank in the class, hash), which gives rounds
    of one example per class.
    """
    members: dict[int, list[int]] = {}
    for i in sorted(range(len(labels)), key=_hash):
        members.setdefault(int(labels[i]), []).append(i)
    return {
        "train": _in_rounds([ids[TEST_PER_CLASS:] for ids in members.values()]),
        "test": _in_rounds([ids[:TEST_PER_CLASS] for ids in members.values()]),
    }


def _in_rounds(classes: list[list[int]]) -> list[int]:
    ranked = [(rank, _hash(i), i) for ids in classes for rank, i in enumerate(ids)]
    return [i for _, _, i in sorted(ranked)]


def _hash(i: int) -> bytes:
    # A hash, not a random generator: no library version can change which rows are in the test set.
    return hashlib.sha256(f"digits/1.0.0/{i}".encode()).digest()


def encode_counts(values: np.ndarray) -> bytes:
    """Encodes values: (8, 8) in 0..16 as a grey PNG: v becomes the byte round(v * 255 / 16)."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(values * (255 / 16)).astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()
