"""The interface of a task: what a run learns and how that is evaluated."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data, evaluation
from pnoise_jax.evaluation import Measure
from pnoise_jax.training.setup import Setup
from pnoise_jax.training.step.random_streams import RandomStreams

OWN_PARAMETERS = "task"  # the entry of `params` that belongs to the task, not to the model
# Config fields that change the targets of examples.
TARGET_FIELDS = (
    "label_smoothing",
    "mixup.alpha",
    "mixup.cutmix_alpha",
    "mixup.layer",
    "mixup.labels_follow_noise",
)
State = Mapping[str, Any]  # collections by name: "batch_stats", and what the task's `init` adds
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class StepContext:
    """What a loss may depend on in addition to parameters, state and batch.

    Attributes:
      step: int32 scalar, the number of updates made so far.
      keys: random keys by the name of their stream, such as ``context.keys["noise"]``.
      noise_strength: overrides the injection's strength: a scalar, or one entry per injection if
        there are several. None, also as an entry, keeps the injection's own strength.
    """

    step: jax.Array
    keys: RandomStreams
    noise_strength: Any = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """What a run learns, and how that is evaluated.

    To define a task, subclass this as a frozen dataclass and implement `loss`. Any fields that the
    subclass adds must have defaults; they are the options of the config's task section. The step,
    the loop, checkpoints, sweeps and reports work with any task.

    Attributes:
      model: maps normalised images to logits, with the config's injections.
      mean: mean per channel, for images in [0, 1].
      std: standard deviation per channel, likewise.
      setup: the data, the config and the rest of the run; None if only the loss is needed.
    """

    model: nn.Module
    mean: data.PixelMean = (0.5,)
    std: tuple[float, ...] = (0.5,)
    setup: Setup | None = None

    classifies: ClassVar[bool] = True  # whether the model returns logits: audits need them
    # The `TARGET_FIELDS` that the loss uses; None if that is not known.
    target_fields: ClassVar[tuple[str, ...] | None] = None
    # The metrics that `loss` returns in addition to the loss, in the order of the progress line.
    step_measures: ClassVar[tuple[Measure, ...]] = ()
    # The metrics in a row of `evaluate`, in the order of the report's columns.
    row_measures: ClassVar[tuple[Measure, ...]] = evaluation.CLASSIFICATION_MEASURES

    @classmethod
    def from_setup(cls, setup: Setup, **options: Any) -> Self:
        """Create the task of a run; `options` come from the config's task section."""
        return cls(model=setup.model, mean=setup.mean, std=setup.std, setup=setup, **options)

    @classmethod
    def prepare_model(cls, model: nn.Module, **options: Any) -> nn.Module:
        """The model to train and evaluate: the config's, with any parts that the task adds.

        Args:
          model: the config's model.
          **options: the options of the config's task section.
        """
        del options
        return model

    def check(self) -> None:
        """Raises ValueError if the run cannot be trained; called before anything is compiled.

        The default checks that the loss uses every field that the config sets to change targets.
        """
        if self.setup is None or self.target_fields is None:
            return
        for name in TARGET_FIELDS:
            section, _, key = name.rpartition(".")
            value = (self.setup.config[section] if section else self.setup.config)[key]
            if value and name not in self.target_fields:
                raise ValueError(
                    f"{name}={value!r}: the task {self.setup.config.task.name!r} does not use it; "
                    f"set {name}={type(value)()!r}"
                )

    def describe_noise(self) -> list[str]:
        """Sentences about noise that the task adds, apart from the model's injections."""
        return []

    def warn_of_data(self) -> list[str]:
        """Warnings that the task's data may not be what the user expects."""
        return []

    def describe_data(self) -> dict[str, Any]:
        """What a run notes about data that are not in the data section; plain JSON."""
        return {}

    def init(self, key: jax.Array, images: jax.ShapeDtypeStruct) -> dict[str, Any]:
        """The collections before the first step; a pure function of the key.

        The task's own parameters, such as a discriminator's, go into
        ``variables["params"]["task"]``. Arrays that are carried from step to step but have no
        gradient go into separate collections.

        Args:
          key: the run's key.
          images: shape and dtype of a batch of normalised images.

        Returns:
          "params", "batch_stats" if the model has any, and the task's collections.
        """
        zeros = jnp.zeros(images.shape, images.dtype)
        return dict(self.model.init({"params": key}, zeros, train=False))

    def after_init(self, state: Any) -> Any:
        """The `TrainState` before the first step, pretrained weights included.

        Override this to derive something from the initial weights; the default changes nothing.
        """
        return state

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """The loss of a batch, or of one of its micro-batches; pure, and jitted with the step.

        Args:
          params: the model's parameters, and the task's own under "task".
          state: the collections that have no gradient, by name.
          batch: a batch from `open_batches`, on the devices.
          context: the step, the keys and the strength of the noise.

        Returns:
          ``loss, (state, metrics)``: a scalar, the collections after the step, and more scalars to
          log.
        """
        raise NotImplementedError

    def after_update(self, state: Any, context: StepContext) -> Any:
        """The `step.TrainState` at the end of a step; the default returns it unchanged.

        Args:
          state: the state after the update and its moving averages; ``state.step`` counts this
            step.
          context: the step number that `loss` was given, ``state.step - 1``, but different keys.
        """
        del context
        return state

    def require_setup(self) -> Setup:
        """The task's setup.

        Raises:
          ValueError: the task was created without one, for its loss alone.
        """
        if self.setup is None:
            raise ValueError(f"{type(self).__name__} has no setup: make it with from_setup")
        return self.setup

    def normalise(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Normalise images, uint8 (batch, height, width, channels), for the model."""
        return evaluation.normalise(images, self.mean, self.std)

    def apply(
        self, params: Any, state: State, images: jax.Array, context: StepContext
    ) -> tuple[jax.Array, State]:
        """Apply the model in training mode, with its noise.

        Args:
          params, state, context: the arguments of `loss`.
          images: normalised, (batch, height, width, channels).

        Returns:
          The logits, (batch, num_classes) float32, and the state with updated batch statistics.
        """
        strength = context.noise_strength
        options: dict[str, Any] = {} if strength is None else {"noise_strength": strength}
        logits, updated = self.model.apply(
            {"params": model_parameters(params), "batch_stats": state.get("batch_stats", {})},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"noise": context.keys["noise"], "dropout": context.keys["dropout"]},
            **options,
        )
        return logits, {**state, "batch_stats": updated.get("batch_stats", {})}

    def open_batches(self, start: int = 0) -> data.BatchIterator:
        """This host's part of the run's batches, from step ``start`` to the end.

        A batch has "image", uint8 (batch, height, width, channels), and "label", int32 (batch,).
        If gradients are accumulated, both have a leading axis of micro-batches.
        """
        setup = self.require_setup()
        return self.open_stream(setup.train_data, setup.config.seed, start)

    def open_stream(
        self, dataset: data.Dataset, seed: int, start: int, **options: Any
    ) -> data.BatchIterator:
        """This host's part of the run's batches of a data set, with the config's augmentation.

        Args:
          dataset: the data set to read.
          seed: the seed of its order and augmentation.
          start: the first step.
          **options: more arguments for `data.train_batches`.
        """
        setup = self.require_setup()
        config = setup.config
        return data.train_batches(
            dataset,
            batch_size=config.batch_size,
            seed=seed,
            start_step=start,
            num_steps=setup.total_steps,
            micro_batches=config.accumulate,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=config.data.num_threads,
            num_workers=config.data.num_workers,
            transform=setup.transform_of(dataset),
            **options,
        )

    @property
    def preparations(self) -> Sequence[int]:
        """The steps before which `prepare` is called, in ascending order; none by default."""
        return ()

    def prepare(
        self,
        variables: Mapping[str, Any],
        state: State,
        step: int,
        *,
        mesh: jax.sharding.Mesh,
        report: Callable[[str], None],
    ) -> State:
        """Compute, from the current weights, what the batches from ``step`` on depend on.

        The result may depend only on the arguments. Every checkpoint contains it, so that a resumed
        run sees the same batches.

        Args:
          variables: the model's, as trained so far; not the moving average.
          state: the task's collections, without the model's.
          step: one of `preparations`.
          mesh: the devices.
          report: called with sentences for the console.

        Returns:
          The collections, changed or not: arrays of the same shapes and dtypes.
        """
        raise NotImplementedError(f"{type(self).__name__} has preparations: define prepare")

    def open_period(self, start: int, state: State) -> data.BatchIterator:
        """The batches from step ``start`` at least to the next preparation.

        Args:
          start: the first step of a period, or the step within one at which a run resumes.
          state: the task's collections, as `prepare` returned them.
        """
        del state
        return self.open_batches(start)

    @property
    def averaged_protocols(self) -> tuple[evaluation.Protocol, ...]:
        """Additional protocols, which average over ``evaluation.draws`` draws of the noise."""
        setup = self.require_setup()
        draws = setup.config.evaluation.draws
        if not any(each.noise.draws or each.draws_layer for each in setup.evaluated_injections):
            return ()
        noisy = (protocol for protocol in setup.protocols if protocol.noise)
        return tuple(dataclasses.replace(p, draws=draws) for p in noisy if draws > 1)

    def evaluate(
        self,
        variables: Mapping[str, Any],
        mesh: jax.sharding.Mesh,
        protocols: Sequence[evaluation.Protocol],
        *,
        report: Callable[[str], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Evaluate the model, by default its classification of the test set: a row per protocol.

        Args:
          variables: the model's.
          mesh: the devices.
          protocols: the protocols to evaluate.
          report: called with sentences about the progress.
        """
        setup = self.require_setup()
        return evaluation.evaluate(
            self.model,
            variables,
            setup.evaluated_data,
            protocols,
            mesh=mesh,
            mean=self.mean,
            std=self.std,
            seed=setup.config.evaluation.seed,
            views=setup.config.evaluation.views,
            report=report,
        )


def model_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """The model's parameters, without the task's own."""
    return {name: value for name, value in params.items() if name != OWN_PARAMETERS}
