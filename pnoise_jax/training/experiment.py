"""What a config describes, built and checked before any long work."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from pnoise_jax import data, evaluation, models, noise, parallel, weights
from pnoise_jax.training import checks, inputs
from pnoise_jax.training.config import validate
from pnoise_jax.training.durations import steps_of
from pnoise_jax.training.mixup import Mixing
from pnoise_jax.training.optimizer import (
    create_optimizer,
    learning_rate_schedule,
)
from pnoise_jax.training.optimizer import frozen as find_frozen
from pnoise_jax.training.step import TrainState, init_state


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config, and what it stands for.

    The training split is not touched before it is asked for: a test split alone can be evaluated.

    Attributes:
      config: the validated config.
      load: takes a split of the config's data set.
      test_data: its images are what the model gets.
      model: with the config's injection.
      mean, std: per channel, of images in [0, 1].
    """

    config: ml_collections.ConfigDict
    load: Callable[..., data.Dataset]
    test_data: data.Dataset
    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @functools.cached_property
    def train_data(self) -> data.Dataset:
        """The training split, its images as they are stored."""
        return self.load(split=self.config.data.train_split)

    @functools.cached_property
    def train_transform(self) -> data.Transform:
        """What makes one of its images what the model gets; random, perhaps."""
        size = self.test_data.image_shape[:2]
        return inputs.transform(self.config, self.train_data, size, train=True)

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.config.steps or self.steps(self.config.duration, "duration")

    def steps(self, duration: str, field: str) -> int:
        """A duration of the config in steps."""
        return steps_of(
            duration,
            field=field,
            examples=len(self.train_data),
            batch_size=self.config.batch_size,
        )

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate by step; config.steps cuts its warm-up and epochs in proportion."""
        section = self.config.optimizer

        def cut(duration: str, field: str) -> int:
            steps = self.steps(duration, field)
            if self.config.steps is None:
                return steps
            return round(steps * self.config.steps / self.steps(self.config.duration, "duration"))

        return learning_rate_schedule(
            section,
            warmup_steps=cut(section.warmup, "optimizer.warmup"),
            total_steps=self.total_steps,
            steps_per_epoch=max(1, cut("1 epochs", "optimizer.schedule")),
        )

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser, its schedule included."""
        return self._optimizer(self.schedule)

    def _optimizer(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        layers = [self.model.layer_name(n) for n in range(1, self.model.num_layers + 1)]
        return create_optimizer(self.config.optimizer, schedule, layers=layers)

    @property
    def frozen(self) -> Callable[[optax.Params], optax.Params] | None:
        """Maps parameters to True where they are frozen; None where none are."""
        patterns = self.config.optimizer.freeze
        return functools.partial(find_frozen, patterns=patterns) if patterns else None

    @property
    def variables(self) -> dict[str, Any]:
        """Shapes and dtypes of the model's collections."""
        return _trace(self.model.clone(injection=None), self.test_data.image_shape)

    def match_weights(self, *, head: str | None = None) -> weights.Weights | None:
        """The config's weights, still in their file; None where it names none.

        Args:
          head: in place of the config's weights_head.

        Raises:
          ValueError, OSError: they cannot be read, or do not fit the model.
        """
        if head is not None and head != self.config.weights_head:
            return self._match_weights(head)
        return self._matched_weights

    @functools.cached_property
    def _matched_weights(self) -> weights.Weights | None:
        """With the config's weights_head: the header and the start of a run take the same."""
        return self._match_weights(self.config.weights_head)

    def _match_weights(self, head: str) -> weights.Weights | None:
        path = self.config.weights
        if path is None:
            return None
        names = self.test_data.class_names
        return weights.match(path, self.model, self.variables, head=head, class_names=names)

    @property
    def mixing(self) -> Mixing | None:
        """Mixup and CutMix, None where both are off."""
        mixing = Mixing(**self.config.mixup)
        return mixing if mixing.is_on else None

    @property
    def protocols(self) -> tuple[evaluation.Protocol, ...]:
        """Clean; and noisy in both orders where the config has noise."""
        return evaluation.standard_protocols(
            self.config.evaluation.batch_size, noise=self.model.injection is not None
        )

    def initial_state(
        self, key: jax.Array, imported: Mapping[str, jax.Array] | None = None
    ) -> TrainState:
        """The state before the first step; imported weights stand in for the model's own."""
        images = jax.ShapeDtypeStruct((1, *self.test_data.image_shape), jnp.float32)
        with_ema = self.config.ema_decay is not None
        # The rates do not matter here, and those of the schedule ask for the training split.
        optimizer = self._optimizer(optax.constant_schedule(0.0))
        return init_state(self.model, optimizer, key, images, with_ema=with_ema, imported=imported)

    def abstract_state(self, mesh: jax.sharding.Mesh) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        sharding = parallel.replicated(mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            jax.eval_shape(self.initial_state, jax.random.key(0)),
        )

    def evaluate(
        self,
        variables: Mapping[str, Any],
        mesh: jax.sharding.Mesh,
        protocols: tuple,
        *,
        report: Callable[[str], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Rows, one per protocol, on the test set; `report` takes a sentence on how far it is."""
        return evaluation.evaluate(
            self.model,
            variables,
            self.test_data,
            protocols,
            mesh=mesh,
            mean=self.mean,
            std=self.std,
            seed=self.config.evaluation.seed,
            views=self.config.evaluation.views,
            report=report,
        )


def build(
    config: ml_collections.ConfigDict, *, load: Callable[..., data.Dataset] = data.load
) -> Experiment:
    """Builds what ``config`` describes; prepares its data set where that is not there yet.

    Args:
      config: to validate.
      load: `data.load`, or a function that remembers what it has loaded.

    Raises:
      ValueError: for a bad field, named; before anything is compiled.
      OSError: the data cannot be read or prepared.
    """
    validate(config)
    injection = noise.Injection.from_config(config.noise)
    section = config.data
    load = functools.partial(load, section.name, data_dir=section.data_dir, cache=section.cache)
    test_data = load(split=section.test_split)
    model = _create_model(config, test_data, injection)
    size = inputs.image_size(config, model, test_data)
    experiment = Experiment(
        config,
        load,
        inputs.transformed(config, test_data, size),
        model,
        tuple(section.mean),
        tuple(section.std),
    )
    checks.check_shapes(experiment)
    return experiment


def _create_model(config, dataset: data.Dataset, injection: noise.Injection | None) -> nn.Module:
    options = dict(config.model)
    name = options.pop("name", None)
    reserved = {"num_classes", "injection", "dtype"} & options.keys()
    if reserved:
        raise ValueError(
            f"model.{min(reserved)} is not set in the model section: the data set gives the "
            "classes, config.noise the injection, config.dtype the dtype"
        )
    try:
        return models.create_model(
            name,
            num_classes=dataset.num_classes,
            injection=injection,
            dtype=jnp.dtype(config.dtype),
            **options,
        )
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith("noise.") else f"model: {text}") from None


@functools.lru_cache(maxsize=16)  # the cells of a sweep share their models
def _trace(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
