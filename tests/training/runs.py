"""Small runs for tests."""

import pathlib

import ml_collections

from pnoise_jax import training


def small_config(data_dir: pathlib.Path, **changes) -> ml_collections.ConfigDict:
    """One block of 16 features; 12 steps of 16 digits; evaluated on 200 digits.

    Changes override fields, such as {"noise.layer": 1}.
    """
    config = training.default_config()
    config.batch_size = 16
    config.duration = "12 steps"
    config.log_every = "4 steps"
    config.model = training.model_config(
        "vit_ti_16", image_size=8, patch_size=4, dim=16, depth=1, num_heads=2
    )
    config.noise.preset = "optimal_all_tokens"
    config.data.data_dir = str(data_dir)
    config.data.train_split = "train[:200]"
    config.data.test_split = "test[:200]"
    config.data.cache = True
    config.checkpoint.every = "4 steps"
    config.update_from_flattened_dict(changes)
    return config
