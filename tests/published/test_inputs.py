"""The published code computes on the same inputs as this project."""

import numpy as np
import pytest
from PIL import Image

from pnoise_jax import data
from tests.published import inputs, theirs

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(inputs.HALF, inputs.HALF), (inputs.IMAGENET_MEAN, inputs.IMAGENET_STD)],
)
def test_three_channels_compute_what_one_does(mean, std):
    state = {
        inputs.KERNEL: GENERATOR.normal(size=(5, 1, 2, 2)).astype(np.float32),
        inputs.BIAS: GENERATOR.normal(size=5).astype(np.float32),
        "head.bias": np.ones(3, np.float32),
    }
    adapted = inputs.three_channels(state, mean, std)
    patch = GENERATOR.uniform(size=(2, 2))
    coloured = (patch - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    grey = (patch[None] - 0.5) / 0.5
    np.testing.assert_allclose(
        np.einsum("dchw,chw->d", adapted[inputs.KERNEL], coloured) + adapted[inputs.BIAS],
        np.einsum("dchw,chw->d", state[inputs.KERNEL], grey) + state[inputs.BIAS],
        rtol=1e-5,
        atol=1e-6,
    )
    assert adapted[inputs.KERNEL].dtype == adapted[inputs.BIAS].dtype == np.float32
    np.testing.assert_array_equal(adapted["head.bias"], state["head.bias"])


def test_sorted_files_are_in_our_class_order(tmp_path, digits):
    images = np.stack([digits[i]["image"] for i in range(30)])
    labels = digits.labels[:30]
    inputs.write_class_folders(tmp_path / "val", inputs.in_colour(images), labels)
    files = sorted(tmp_path.glob("val/*/*.png"))
    order = data.evaluation_order(labels, "class_sorted", seed=0)
    assert [int(file.stem) for file in files] == order.tolist()
    assert [int(file.parent.name) for file in files] == labels[order].tolist()
    for file, i in zip(files, order, strict=True):
        with Image.open(file) as stored:
            np.testing.assert_array_equal(stored, np.repeat(images[i], 3, axis=-1))


def test_the_stored_order_of_the_digits_has_each_class_once_in_a_batch(digits):
    batches = digits.labels.reshape(-1, 10)
    assert (np.sort(batches, axis=1) == np.arange(10)).all()


def test_lines_of_the_evaluation_are_read():
    output = (
        "Train [0][5/30]\tLoss 2.1 (2.2)\tAccuracy 0.500 (0.400)\n"
        "Test [0][95/100]\tLoss 0.8 (0.9)\tAccuracy 0.755 (0.813)\tTop 5 Accuracy 0.9 (0.8)\n"
    )
    assert theirs.printed_lines(output) == (theirs.Line(95, "0.755", "0.813"),)
