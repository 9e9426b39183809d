"""Every config builds, and its train step and models trace, on shapes alone."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from pnoise_jax import noise, training

CONFIGS = sorted(path.stem for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("preset", [None, *noise.PRESETS])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_builds_with_every_preset_that_its_model_has_a_place_for(name, preset, data_dir):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.data_dir = str(data_dir)
    config.batch_size = 48  # 8 devices here
    if preset is not None:
        config.noise.preset = preset
        config.noise.train = True
    if "resnet" in name and preset in ("published_vit", "optimal_published"):
        with pytest.raises(ValueError, match="this model has no such point"):
            training.build(config)
        return
    experiment = training.build(config)
    step = training.make_train_step(
        experiment.model, experiment.optimizer, mean=experiment.mean, std=experiment.std
    )
    shape = experiment.train_data.image_shape
    batch = {
        "image": jax.ShapeDtypeStruct((config.batch_size, *shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
    }
    state = jax.eval_shape(experiment.initial_state, jax.random.key(0))
    after, metrics = jax.eval_shape(step, state, batch, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_its_command(name):
    module = importlib.import_module(f"configs.{name}")
    assert f"--config configs/{name}.py" in module.__doc__
