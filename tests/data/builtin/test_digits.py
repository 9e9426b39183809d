"""The digits data set: what is in it, in which split, and in what order."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pnoise_jax.data import load
from pnoise_jax.data.builtin.digits import Digits, split_ids

NUM_CLASSES = 10
SIZES = {"train": 797, "test": 1000}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A directory with the data set prepared, where any attempt to reach a network fails."""

    def refuse(*_, **__):
        raise AssertionError("preparing the digits must not use the network")

    directory = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        patch.setattr("socket.getaddrinfo", refuse)
        load("digits", split="train", data_dir=directory)
    return directory


@pytest.fixture(scope="module")
def raw():
    images, labels = load_digits(return_X_y=True)
    return np.rint(images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8), labels


def stored_ids(data_dir, split):
    source = Digits(data_dir=data_dir, file_format="array_record").as_data_source(split)
    return [int(example["id"]) for example in source]


def counts(labels):
    return np.bincount(labels, minlength=NUM_CLASSES)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("cache", [False, True])
def test_every_image_and_label_is_scikit_learns(data_dir, raw, split, cache):
    dataset = load("digits", split=split, data_dir=data_dir, cache=cache)
    ids = stored_ids(data_dir, split)
    assert len(dataset) == SIZES[split] == len(ids)
    assert (dataset.num_classes, dataset.image_shape) == (NUM_CLASSES, (8, 8, 1))
    assert dataset.labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.labels, raw[1][ids])
    for i, example in zip(ids, dataset, strict=True):
        assert example["image"].dtype == np.uint8
        np.testing.assert_array_equal(example["image"], raw[0][i])
        assert example["label"] == raw[1][i]


def test_the_splits_hold_every_digit_exactly_once(data_dir):
    ids = stored_ids(data_dir, "train") + stored_ids(data_dir, "test")
    assert sorted(ids) == list(range(1797))


def test_the_test_split_has_100_of_each_class(data_dir):
    labels = load("digits", split="test", data_dir=data_dir).labels
    assert counts(labels).tolist() == [100] * NUM_CLASSES


def test_every_prefix_is_as_balanced_as_the_classes_allow(data_dir):
    for split in SIZES:
        labels = load("digits", split=split, data_dir=data_dir).labels
        available = counts(labels)
        for n in range(1, len(labels) + 1):
            taken = counts(labels[:n])
            unfinished = taken[taken < available]
            # No class lags behind another by more than one, unless all of it is taken.
            assert not unfinished.size or taken.max() - unfinished.min() <= 1


def test_a_prefix_of_300_has_30_of_each_class(data_dir):
    labels = load("digits", split="train[:300]", data_dir=data_dir).labels
    assert counts(labels).tolist() == [30] * NUM_CLASSES


def test_the_stored_order_is_the_documented_one(data_dir, raw):
    for split, ids in split_ids(raw[1]).items():
        assert stored_ids(data_dir, split) == ids


def test_the_split_never_changes(raw):
    # These numbers are version 1.0.0 of the data set: a change needs another version.
    ids = split_ids(raw[1])
    assert ids["train"][:5] == [68, 1004, 1783, 249, 521]
    assert ids["test"][:5] == [1265, 1292, 1724, 1760, 595]
