"""How stored images become a model's input."""

import numpy as np
import pytest

from pnoise_jax import data, training
from pnoise_jax.training import checks
from tests.training.runs import small_config


def with_opacity():
    shown = np.zeros((8, 8, 8, 4), np.uint8)
    return data.InMemory({"train": (shown, np.arange(8)), "test": (shown, np.arange(8))})


@pytest.mark.parametrize("change", ["rand_augment", "color_jitter(0.4, 0.4)"])
def test_a_transform_that_does_not_fit_the_channels_is_refused_at_once(tmp_path, change):
    config = small_config(tmp_path, batch_size=8)
    config.data.name, config.data.train_transform = f"{__name__}:with_opacity", f"none|{change}"
    config.data.train_split, config.data.test_split = "train", "test"
    config.noise.preset = None
    with pytest.raises(
        ValueError,
        match=r"data\.train_transform='none\|.* does not fit .*: colour operations .* has 4: leave",
    ):
        checks.check_training(training.build(config))
    config.data.train_transform = "none|flip|random_shift|random_erasing"
    checks.check_training(training.build(config))


def coloured():
    shown = np.full((8, 8, 8, 3), 255, np.uint8)
    return data.InMemory({"train": (shown, np.arange(8)), "test": (shown, np.arange(8))})


def test_gaps_have_the_mean_colour_of_the_mean_image(tmp_path):
    blue_green_red = np.array([90.0, 110.0, 130.0])
    np.save(tmp_path / "mean.npy", np.tile(blue_green_red[:, None, None], (1, 8, 8)))
    changes = {"data.mean_image": str(tmp_path / "mean.npy"), "data.std": (1.0,)}
    config = small_config(tmp_path, batch_size=8, **changes)
    config.data.name = f"{__name__}:coloured"
    config.data.train_split, config.data.test_split = "train", "test"
    config.noise.preset = None
    config.data.train_transform = "none|random_erasing(1, scale=(0.3, 0.3), ratio=(1, 1))"
    experiment = training.build(config)
    image = experiment.train_transform(experiment.train_data.images[0], np.random.default_rng(0))
    covered = image[(image != 255).any(axis=-1)]
    np.testing.assert_array_equal(np.unique(covered, axis=0), [[130, 110, 90]])
