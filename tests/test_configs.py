"""Every config builds, and its train step and models trace, on shapes alone."""

import importlib
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import data, noise, training

NAMES = sorted(path.stem for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
# Those that take an argument, "config.py:argument", with every one that they take.
ARGUMENTS = {
    "figure2": ("vit", "resnet"),
    "glyphs_resnet": ("200", "1000"),
    "glyphs_vit": ("200", "1000"),
    "glyphs_vit_gpu": ("200", "1000"),
    "inference_mixing": ("vit", "resnet"),
    "training_noise": ("vit", "resnet"),
}


def get_config(name, argument=None):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config() if argument is None else module.get_config(argument)


def load(name, *, split, **options):
    """As `data.load`, but for the glyphs, which take long to prepare, only their shape."""
    if not name.startswith("glyphs/"):
        return data.load(name, split=split, **options)
    classes = int(name.removeprefix("glyphs/"))
    labels = np.tile(np.arange(classes, dtype=np.int32), 80)
    images = np.broadcast_to(np.uint8(0), (len(labels), 32, 32, 1))
    return data.Dataset(name, split, classes, images.shape[1:], labels, images)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ARGUMENTS])
def test_a_config_builds(name, data_dir):
    config = get_config(name)
    config.data.data_dir = str(data_dir)
    config.batch_size = 48  # 8 devices here
    assert_trains(config)


@pytest.mark.parametrize("preset", noise.PRESETS)
@pytest.mark.parametrize("name", ["digits_vit", "digits_resnet"])
def test_a_config_builds_with_every_preset_that_its_model_has_a_place_for(name, preset, data_dir):
    config = get_config(name)
    config.data.data_dir = str(data_dir)
    config.batch_size = 48
    config.noise.preset = preset
    config.noise.train = True
    if "resnet" in name and preset in ("published_vit", "optimal_published"):
        with pytest.raises(ValueError, match="this model has no such point"):
            training.build(config, load=load)
        return
    assert_trains(config)


@pytest.mark.parametrize(
    ("name", "argument"), [(name, given) for name in ARGUMENTS for given in ARGUMENTS[name]]
)
def test_a_config_builds_with_every_argument(name, argument, data_dir):
    config = get_config(name, argument)
    assert argument in config.data.name or argument in config.model.name
    config.data.data_dir = str(data_dir)
    config.batch_size = 48
    assert_trains(config)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_takes_the_arguments_that_are_tried_here(name):
    takes = inspect.signature(importlib.import_module(f"configs.{name}").get_config).parameters
    assert len(takes) == (name in ARGUMENTS)
    if takes:
        with pytest.raises(ValueError, match=rf"{name}\.py:300: give .* or "):
            get_config(name, "300")


def assert_trains(config):
    experiment = training.build(config, load=load)
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


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_its_command(name):
    module = importlib.import_module(f"configs.{name}")
    assert f"--config configs/{name}.py" in module.__doc__
