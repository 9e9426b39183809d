"""Arrays that a study keeps: of which images they are."""

import pytest

from pnoise_jax import training
from pnoise_jax.studies.kept_arrays import describe_images
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
