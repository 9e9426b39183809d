"""What a run learns: the protocol of a task."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data, evaluation
from pnoise_jax.evaluation import Measure
from pnoise_jax.training.random_streams import RandomStreams
from pnoise_jax.training.setup import Setup

OWN_PARAMETERS = "task"  # the entry of the parameters that are the task's and not the model's
# Fields of a config that change the targets of examples.
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
    """What a loss may depend on beside parameters, state and batch.

    Attributes:
      step: int32 scalar, the updates made before.
      keys: by the names of random streams, such as ``context.keys["noise"]``.
      noise_strength: in place of the injection's own, or None: a scalar, of several injections one
        each, of which None leaves its injection's own.
    """

    step: jax.Array
    keys: RandomStreams
    noise_strength: Any = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """What a run learns, and how that is measured.

    A task of your own is a frozen dataclass, a subclass with `loss`. Its further fields, which need
    defaults, are the options of the config's task section. The step, the loop, checkpoints, sweeps
    and reports work with any task.

    Attributes:
      model: maps normalised images to logits, with the config's injections.
      mean: per channel, of images in [0, 1].
      std: likewise.
      setup: the data, the config and the rest of the run; None where only the loss is needed.
    """

    model: nn.Module
    mean: data.PixelMean = (0.5,)
    std: tuple[float, ...] = (0.5,)
    setup: Setup | None = None

    classifies: ClassVar[bool] = True  # whether the model returns logits: audits need them
    # Of `TARGET_FIELDS` those that the loss uses; None where that is not known.
    target_fields: ClassVar[tuple[str, ...] | None] = None
    # What `loss` returns beside the loss, in the order of the progress line.
    step_measures: ClassVar[tuple[Measure, ...]] = ()
    # What a row of `evaluate` holds, in the order of the report's columns.
    row_measures: ClassVar[tuple[Measure, ...]] = evaluation.CLASSIFICATION_MEASURES

    @classmethod
    def from_setup(cls, setup: Setup, **options: Any) -> Self:
        """The task of a run; `options` are those of its config's task section."""
        return cls(model=setup.model, mean=setup.mean, std=setup.std, setup=setup, **options)

    @classmethod
    def prepare_model(cls, model: nn.Module, **options: Any) -> nn.Module:
        """What a task trains and evaluates: the config's model, or that with parts of the task's.

        Args:
          model: the config's.
          **options: those of the config's task section.
        """
        del options
        return model

    def check(self) -> None:
        """Raises ValueError where the run cannot be trained; before anything is compiled.

        Here: where the config changes targets in a way that the loss would not notice.
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
        """Sentences on the noise of the task's own, beside that of the model's injections."""
        return []

    def warn_of_data(self) -> list[str]:
        """Sentences where the task's data may not be what a user takes them for."""
        return []

    def describe_data(self) -> dict[str, Any]:
        """What a run notes of its data beside those of the data section; plain JSON."""
        return {}

    def init(self, key: jax.Array, images: jax.ShapeDtypeStruct) -> dict[str, Any]:
        """The collections before the first step; a pure function of the key.

        Parameters of the task's own, such as those of a discriminator, go into
        ``variables["params"]["task"]``; arrays that are carried from step to step, but have no
        gradient, into collections of their own names.

        Args:
          key: of the run.
          images: shape and dtype of a batch of normalised images.

        Returns:
          "params", "batch_stats" where the model has some, and the task's own collections.
        """
        zeros = jnp.zeros(images.shape, images.dtype)
        return dict(self.model.init({"params": key}, zeros, train=False))

    def after_init(self, state: Any) -> Any:
        """The `TrainState` before the first step, pretrained weights included; unchanged here.

        For what a task derives from the weights that the run starts with.
        """
        return state

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """The loss of a batch, or of one of its micro-batches; pure, and jitted with the step.

        Args:
          params: the model's parameters, and at "task" those of the task's own.
          state: the collections that have no gradient, by name.
          batch: as `open_batches` gives it, on the devices.
          context: the step, keys and the strength of the noise.

        Returns:
          The loss, a scalar; and the collections after the step with further scalars to log.
        """
        raise NotImplementedError

    def after_update(self, state: Any, context: StepContext) -> Any:
        """The `step.TrainState` at the end of a step; unchanged here, without any operation.

        Args:
          state: after the update, its moving averages included; ``state.step`` counts it.
          context: the step as `loss` had it, one less than ``state.step``; its keys are others.
        """
        del context
        return state

    def require_setup(self) -> Setup:
        """The setup of a task that was made from one.

        Raises:
          ValueError: it was made for its loss alone.
        """
        if self.setup is None:
            raise ValueError(f"{type(self).__name__} has no setup: make it with from_setup")
        return self.setup

    def normalise(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Maps images, uint8 (batch, height, width, channels), to what the model takes."""
        return evaluation.normalise(images, self.mean, self.std)

    def apply(
        self, params: Any, state: State, images: jax.Array, context: StepContext
    ) -> tuple[jax.Array, State]:
        """The model in training mode, with its noise.

        Args:
          params, state, context: as `loss` has them.
          images: normalised, (batch, height, width, channels).

        Returns:
          The logits, (batch, num_classes) float32; and the state with new batch statistics.
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
        """This host's part of the batches of the run, from step ``start`` to the end.

        A batch has "image", uint8 (batch, height, width, channels), and "label", int32 (batch,);
        with an axis of micro-batches in front where gradients are accumulated.
        """
        setup = self.require_setup()
        return self.open_stream(setup.train_data, setup.config.seed, start)

    def open_stream(
        self, dataset: data.Dataset, seed: int, start: int, **options: Any
    ) -> data.BatchIterator:
        """This host's part of the run's batches of a data set, with the config's augmentation.

        Args:
          dataset: what to read.
          seed: of its order and augmentation.
          start: the first step.
          **options: further arguments of `data.train_batches`.
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
        """The steps, ascending, before which `prepare` is called; none by default."""
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
        """What the batches from ``step`` on depend on, computed from the weights before it.

        It must be a function of its arguments alone. Every checkpoint holds the result, so that a
        run that goes on sees the same batches.

        Args:
          variables: of the model, as trained so far; not the moving average.
          state: the collections that the task keeps beside the model's.
          step: one of `preparations`.
          mesh: the devices.
          report: takes a sentence for the console.

        Returns:
          The collections, changed or not: arrays of the same shapes and dtypes.
        """
        raise NotImplementedError(f"{type(self).__name__} has preparations: define prepare")

    def open_period(self, start: int, state: State) -> data.BatchIterator:
        """The batches from step ``start`` to the next preparation, or further.

        Args:
          start: the first step of a period, or where a run goes on within one.
          state: the collections that the task keeps, with what `prepare` has put there.
        """
        del state
        return self.open_batches(start)

    @property
    def averaged_protocols(self) -> tuple[evaluation.Protocol, ...]:
        """Beside the standard ones, those that average over ``evaluation.draws`` draws of noise."""
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
        """Rows, one per protocol: by default of the model's classification of the test set.

        Args:
          variables: of the model.
          mesh: the devices.
          protocols: which rows.
          report: takes a sentence on how far it is.
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
    """The parameters without those of the task's own."""
    return {name: value for name, value in params.items() if name != OWN_PARAMETERS}
