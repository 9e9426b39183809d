"""What two splits, or two data sets, have in common."""

import dataclasses

import numpy as np
import pytest

from pnoise_jax import data


def split_of(name, split, images):
    labels = np.zeros(len(images), np.int32)
    return data.Dataset(
        name, split, 2, (4, 4, 1), labels, images, parts=((split, slice(0, len(images))),)
    )


@pytest.mark.parametrize(("equal", "of_one_set"), [(0, 0), (1, 0), (2, 0), (3, 3)])
def test_a_few_equal_images_of_one_data_set_are_chance(equal, of_one_set):
    """Up to a hundredth, such as black ones; between two data sets, all count."""
    images = np.random.default_rng(0).integers(0, 256, (500, 4, 4, 1), np.uint8)
    train, test = images[:300], images[300:].copy()
    test[:equal] = train[:equal]
    ours = split_of("one", "test", test)
    assert data.count_shared(ours, split_of("one", "train", train)) == of_one_set
    assert data.count_shared(ours, split_of("other", "train", train)) == equal


def test_examples_of_one_data_set_are_found_by_their_place():
    images = np.random.default_rng(0).integers(0, 256, (500, 4, 4, 1), np.uint8)
    whole = split_of("one", "train", images)
    part = data.Dataset(
        "one",
        "train[:1]",
        2,
        (4, 4, 1),
        np.zeros(1, np.int32),
        images[:1],
        parts=(("train", slice(0, 1)),),
    )
    assert data.count_shared(whole, part) == data.count_shared(part, whole) == 1


def test_positions_in_directories_with_other_files_are_not_compared():
    """Of the same name: prepared again from other images, or in another directory."""
    images = np.random.default_rng(0).integers(0, 256, (500, 4, 4, 1), np.uint8)
    ours, theirs = (split_of("one", "train", part) for part in (images[:200], images[198:]))
    ours = dataclasses.replace(ours, content="before")
    assert data.count_shared(ours, dataclasses.replace(theirs, content="before")) == 200
    assert data.count_shared(ours, dataclasses.replace(theirs, content="after")) == 2


@pytest.mark.parametrize(
    ("split", "repeated"),
    [
        ("test", 0),
        ("test[:50%]+test[50%:]", 0),
        ("test+train", 0),
        ("test+test", 1000),
        ("test[:60%]+train[:7]+test[40%:]", 200),
        ("train[:5]+train[:5]+train[:5]", 10),
    ],
)
def test_overlapping_parts_of_a_split_repeat_examples(split, repeated, data_dir):
    dataset = data.load("digits", split=split, data_dir=data_dir)
    assert data.count_repeated(dataset) == repeated
