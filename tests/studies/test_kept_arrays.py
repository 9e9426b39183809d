"""Arrays that a study keeps: of which images they are."""

import numpy as np
import pytest

from pnoise_jax import training
from pnoise_jax.studies.kept_arrays import describe_images, read_arrays, write_arrays
from tests.adaptation import domains


def described(**changes):
    return describe_images(training.build(domains.config("source_only", **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"data.test_transform": "square_crop(8/16)"},
        {"data.test_split": "test[:20]"},
        {"data.name": "tests.adaptation.domains:renumbered"},
        {"evaluation.classes": "of_data_set"},
    ],
)
def test_other_images_or_other_pixels_are_another_measurement(changes):
    assert described(**changes) != described()


def test_how_images_are_read_makes_no_other_measurement():
    assert described(**{"data.num_threads": 3}) == described()


def test_damaged_arrays_are_missing_and_never_others(tmp_path):
    """A byte changed at many places, as on a broken disk."""
    file = tmp_path / "kept.npz"
    labels = np.random.default_rng(0).integers(0, 10, 500)
    write_arrays(file, "identity", {"labels": labels, "correct": labels > 4})
    content, kept = file.read_bytes(), []
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        file.write_bytes(damaged)
        kept.append(read_arrays(file, "identity"))
    assert any(arrays is None for arrays in kept)
    for arrays in filter(None, kept):  # a byte that is not read, such as that of a date
        np.testing.assert_array_equal(arrays["labels"], labels)
        np.testing.assert_array_equal(arrays["correct"], labels > 4)
    file.write_bytes(content)
    assert read_arrays(file, "another") is None
    assert set(read_arrays(file, "identity")) == {"labels", "correct"}
