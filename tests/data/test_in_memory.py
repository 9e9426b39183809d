"""Your own data sets, in memory, by name."""

import numpy as np
import pytest

from pnoise_jax import data
from pnoise_jax.data import in_memory


def blobs():
    """The example in the documentation: a bright blob in one of four corners."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 4
    images = generator.integers(0, 80, (120, 8, 8, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(label, 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 100
    return data.InMemory(
        {"train": (images[:80], labels[:80]), "test": (images[80:], labels[80:])},
        class_names=("top left", "top right", "bottom left", "bottom right"),
    )


def broken():
    raise RuntimeError("no such file")


def wrong():
    return np.zeros(3)


@pytest.fixture(autouse=True)
def registered():
    data.register_dataset("corner_blobs")(blobs)
    yield
    del in_memory.DATASETS._things["corner_blobs"]


def test_a_registered_data_set_is_read_like_others():
    assert "corner_blobs" in data.list_datasets()
    train = data.load("corner_blobs", split="train[10:20]+test")
    whole = blobs().splits
    assert len(train) == 50
    assert train.class_names[3] == "bottom right"
    np.testing.assert_array_equal(train[0]["image"], whole["train"][0][10])
    np.testing.assert_array_equal(train.labels[10:], whole["test"][1])
    np.testing.assert_array_equal(train[49]["image"], whole["test"][0][-1])
    with pytest.raises(ValueError, match="read-only"):
        train.images[0, 0, 0, 0] = 1
    by_import = data.load(f"{__name__}:blobs", split="test")
    np.testing.assert_array_equal(by_import.images, whole["test"][0])
    with data.train_batches(by_import, batch_size=8, seed=0, start_step=0, num_steps=1) as batches:
        assert next(batches)["image"].shape == (8, 8, 8, 1)


@pytest.mark.parametrize("name", ["digits", "imagenet2012", "imagenet_a"])
def test_a_built_in_name_is_taken(name):
    with pytest.raises(ValueError, match=f"data set '{name}' is built in: choose another name"):
        data.register_dataset(name)(blobs)


def test_a_function_is_called_once_until_it_is_defined_again():
    calls = []

    def define(value):
        def defined_in_a_cell():
            calls.append(value)
            return data.InMemory({"train": (IMAGES + np.uint8(value), LABELS)})

        data.register_dataset("of_a_cell")(defined_in_a_cell)

    try:
        for value in (3, 5):
            define(value)
            for _ in range(2):
                assert (data.load("of_a_cell", split="train").images == value).all()
        assert calls == [3, 5]
    finally:
        del in_memory.DATASETS._things["of_a_cell"]


def test_arrays_count_as_one_file():
    assert len(data.load("corner_blobs", split="train[0shard]+test")) == 120


def test_the_version_depends_on_the_content():
    same, other = blobs(), blobs()
    other.splits["test"][1][0] = 3
    assert same.version == blobs().version != other.version
    loaded = data.load("corner_blobs", split="test")
    assert loaded.version == loaded.content == same.version  # runs and sweeps compare contents


IMAGES, LABELS = np.zeros((4, 8, 8, 1), np.uint8), np.arange(4)


@pytest.mark.parametrize(
    ("splits", "names", "message"),
    [
        ({}, None, "pass a dict such as"),
        ({"train": IMAGES}, None, "split 'train' is a ndarray: pass .images, labels."),
        ({"train": (IMAGES / 255, LABELS)}, None, "images of split 'train' are float64"),
        ({"train": (IMAGES[..., 0], LABELS)}, None, r"are uint8 \(4, 8, 8\)"),
        ({"train": (IMAGES, LABELS[:3])}, None, r"are int64 \(3,\) for 4 images"),
        ({"train": (IMAGES, LABELS / 2)}, None, "labels of split 'train' are float64"),
        ({"train": (IMAGES, LABELS - 1)}, None, "has label -1: labels start at 0"),
        ({"train": (IMAGES, LABELS)}, ("a", "b"), "has label 3, but there are only 2 class names"),
        ({"train": (IMAGES, LABELS)}, ("a", "b", "c", "a"), "give every class a unique name"),
        ({"train": (IMAGES, LABELS)}, ("a", "b", "é", "e\u0301"), "give every class a unique name"),
        ({"train": (IMAGES, LABELS)}, range(4), r"class_names=range\(0, 4\): give strings"),
        ({1: (IMAGES, LABELS)}, None, "split 1: the name of a split must be a string"),
        (
            {"train": (IMAGES, LABELS), "test": (IMAGES[:, :4], LABELS)},
            None,
            "images of different shapes",
        ),
    ],
)
def test_bad_input_arrays_are_named(splits, names, message):
    with pytest.raises(ValueError, match=message):
        data.InMemory(splits, names)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        (
            "corner_blobs",
            "val",
            r"split='val' .* data.name='corner_blobs': .*train \(80 examples\)",
        ),
        ("corner_blobs", "train[:0]", "A part of it is empty"),
        (f"{__name__}:broken", "train", r"failed \(RuntimeError: no such file\)"),
        (f"{__name__}:wrong", "train", "returned a ndarray: make it return data.InMemory"),
        (f"{__name__}:missing", "train", "cannot be imported .*AttributeError"),
        (f"{__name__}:IMAGES", "train", "is not a data set: register a function"),
        ("corner_blob", "train", "data.name='corner_blob' is unknown; did you mean 'corner_blobs'"),
    ],
)
def test_bad_input_names_are_named(name, split, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, split=split)
    with pytest.raises(ValueError, match="data set 'corner_blobs' is already registered"):
        data.register_dataset("corner_blobs")(broken)
