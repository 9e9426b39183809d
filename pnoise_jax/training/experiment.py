"""Builds and checks everything that a config describes before any long work."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from pnoise_jax import data, models, noise, parallel
from pnoise_jax.training import checks, inputs
from pnoise_jax.training.configuration.config import validate
from pnoise_jax.training.setup import Setup
from pnoise_jax.training.step.step import TrainState, init_state
from pnoise_jax.training.task import Task
from pnoise_jax.training.task_registry import create_task, prepare_model


class Experiment(Setup):
    """A config, the parts that it describes, and its task."""

    @functools.cached_property
    def task(self) -> Task:
        """The task: what the run learns, and how that is evaluated."""
        return create_task(self)

    def initial_state(
        self, key: jax.Array, imported: Mapping[str, jax.Array] | None = None
    ) -> TrainState:
        """The state before the first step; imported weights replace the model's initial ones."""
        images = jax.ShapeDtypeStruct((1, *self.test_data.require_image_shape()), jnp.float32)
        with_ema = self.config.ema_decay is not None
        # The rate does not matter here, and the config's schedule would load the training split.
        optimizer = self.create_optimizer(optax.constant_schedule(0.0))
        return init_state(self.task, optimizer, key, images, with_ema=with_ema, imported=imported)

    @functools.cached_property
    def parameters(self) -> Any:
        """Shapes and dtypes of the parameters to train, including the task's own."""
        return jax.eval_shape(self.initial_state, jax.random.key(0)).params

    def abstract_state(self, mesh: jax.sharding.Mesh) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        state = jax.eval_shape(self.initial_state, jax.random.key(0))
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            state,
            parallel.place(state, mesh, self.matmul_split),
        )


@checks.as_config_errors()
def build(
    config: ml_collections.ConfigDict, *, load: Callable[..., data.Dataset] = data.load
) -> Experiment:
    """Builds what ``config`` describes; prepares its data set if that is missing.

    Args:
      config: the config; it is validated.
      load: `data.load`, or a function like it that caches what it loads.

    Raises:
      ConfigError: a field is bad; names it, before anything is compiled.
      OSError: the data cannot be read or prepared.
    """
    validate(config)
    injections = noise.injections_from_config(config.noise)
    section = config.data
    load = functools.partial(load, section.name, data_dir=section.data_dir, cache=section.cache)
    test_data = load(split=section.test_split)
    checks.check_test_split(test_data)
    model = _create_model(config, test_data, injections)
    size = inputs.image_size(config, model, test_data)
    mean, std = _read_statistics(config, size)
    if any(each.point == "image" for each in injections):
        in_pixels = noise.in_pixels(injections, noise.PixelScale(mean, std))
        (first, *others) = in_pixels
        model = model.clone(injection=in_pixels if others else first)
    plain_model, model = model, prepare_model(config.task, model)
    test_data = inputs.transformed(config, test_data, size)
    experiment = Experiment(config, load, test_data, model, plain_model, mean, std)
    checks.check_shapes(experiment)
    task = experiment.task  # checks its options
    checks.check_classes(config, classifies=task.classifies)
    checks.check_draws(config, task.averaged_protocols, classifies=task.classifies)
    return experiment


def _read_statistics(
    config: ml_collections.ConfigDict, size: tuple[int, int]
) -> tuple[data.PixelMean, tuple[float, ...]]:
    """Mean and standard deviation of the pixels; a mean image has height and width `size`."""
    section = config.data
    std = tuple(section.std)
    if section.mean_image is None:
        return tuple(section.mean), std
    return data.load_mean_image(section.mean_image, size=size), std


def _create_model(
    config, dataset: data.Dataset, injections: tuple[noise.Injection, ...]
) -> nn.Module:
    options = dict(config.model)
    name = options.pop("name", None)
    reserved = {"num_classes", "injection", "dtype"} & options.keys()
    if reserved:
        raise ValueError(
            f"model.{min(reserved)} must not be set in the model section: the data set sets the "
            "classes, config.noise the injections, config.dtype the dtype"
        )
    try:
        return models.create_model(
            name,
            num_classes=dataset.num_classes,
            injection=injections,
            dtype=jnp.dtype(config.dtype),
            **options,
        )
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith("noise.") else f"model: {text}") from None
