"""What a run learns: the protocol of a task, and the registry that finds one by name."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from pnoise_jax import data, evaluation
from pnoise_jax.evaluation import Measure
from pnoise_jax.registry import Registry, did_you_mean
from pnoise_jax.training.random_streams import RandomStreams
from pnoise_jax.training.setup import Setup

OWN_PARAMETERS = "task"  # the entry of the parameters that are the task's and not the model's
State = Mapping[str, Any]  # collections by name: "batch_stats", and what the task's `init` adds
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class StepContext:
    """What a loss may depend on beside parameters, state and batch.

    Attributes:
      step: int32 scalar, the updates made before.
      keys: by the names of random streams, such as ``context.keys["noise"]``.
      noise_strength: scalar in place of the injection's own, or None.
    """

    step: jax.Array
    keys: RandomStreams
    noise_strength: jax.Array | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """What a run learns, and how that is measured.

    A task of your own is a frozen dataclass, a subclass with `loss`. Its further fields, which need
    defaults, are the options of the config's task section. The step, the loop, checkpoints, sweeps
    and reports work with any task.

    Attributes:
      model: maps normalised images to logits, with the config's injection.
      mean: per channel, of images in [0, 1].
      std: likewise.
      setup: the data, the config and the rest of the run; None where only the loss is needed.
    """

    model: nn.Module
    mean: data.PixelMean = (0.5,)
    std: tuple[float, ...] = (0.5,)
    setup: Setup | None = None

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
        """Raises ValueError where the run cannot be trained; before anything is compiled."""

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
        config = setup.config
        return data.train_batches(
            setup.train_data,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start,
            num_steps=setup.total_steps,
            micro_batches=config.accumulate,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=config.data.num_threads,
            num_workers=config.data.num_workers,
            transform=setup.train_transform,
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
            setup.test_data,
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


def _require_task(kind: Any) -> None:
    """Raises ValueError unless this is a class of tasks, naming what it lacks."""
    name = getattr(kind, "__name__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise ValueError(f"{name} is not a task: make it a subclass of training.Task")
    if kind.loss is Task.loss:
        raise ValueError(f"{name} lacks loss: training.Task says what a task must define")
    for field in _options(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(
                f"{name}.{field.name} has no default: give it one, since a config may leave it out"
            )
    declared = set(inspect.get_annotations(kind)) - {"step_measures", "row_measures"}
    if "__dataclass_params__" not in vars(kind) and declared:
        raise ValueError(
            f"{name} declares fields but is not a dataclass: decorate it with "
            "@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)"
        )


TASKS: Registry[type[Task]] = Registry("task", _require_task)
for _name, _place in (
    ("source_only", "source_only:SourceOnly"),
    ("dann", "dann:Dann"),
    ("tvt", "tvt:Tvt"),
    ("ssrt", "ssrt:Ssrt"),
    ("cdtrans", "cdtrans:CdTrans"),
):
    TASKS.register_lazily(_name, f"pnoise_jax.adaptation.{_place}")


def register_task(name: str) -> Callable[[type[Task]], type[Task]]:
    """A decorator that gives a task of your own a name: ``config.task.name = "mine"``.

    Without registration, a config can say ``config.task.name = "module:Class"``.

    Args:
      name: a new one.

    Raises:
      ValueError: the name is taken, or the class lacks what every `Task` must define.
    """
    return functools.partial(TASKS.register, name)


def task_config(name: str, **options: Any) -> ml_collections.ConfigDict:
    """The task section of a config: a task's name and all its options.

    Raises:
      ValueError: an unknown name or option.
    """
    defaults = default_task_options(name)
    _require_known(name, options, defaults)
    return ml_collections.ConfigDict({"name": name} | defaults | options)


def default_task_options(name: str) -> dict[str, Any]:
    """The options of a task and their defaults.

    Raises:
      ValueError: there is no such task, or it cannot be imported.
    """
    return {
        field.name: field.default
        if field.default_factory is dataclasses.MISSING
        else field.default_factory()
        for field in _options(TASKS[name])
    }


def create_task(setup: Setup) -> Task:
    """The task that the config of a run names.

    Raises:
      ValueError: an unknown task or option, or a value that the task refuses.
    """
    kind, options = _find_task(setup.config.task)
    try:
        return kind.from_setup(setup, **options)
    except ValueError as error:
        raise ValueError(f"task: {error}") from error


def prepare_model(section: Mapping[str, Any], model: nn.Module) -> nn.Module:
    """The model that the task of a config trains; see `Task.prepare_model`.

    Raises:
      ValueError: an unknown task or option, or a model that does not suit the task.
    """
    kind, options = _find_task(section)
    return kind.prepare_model(model, **options)


def _find_task(section: Mapping[str, Any]) -> tuple[type[Task], dict[str, Any]]:
    options = dict(section)
    name = options.pop("name", None)
    _require_known(name, options, default_task_options(name))
    return TASKS[name], options


def _options(kind: type[Task]) -> list[dataclasses.Field]:
    """The fields that are options: all but those of every task, and those that a class fills."""
    common = {field.name for field in dataclasses.fields(Task)}
    return [
        field
        for field in dataclasses.fields(kind)
        if field.name not in common and not field.metadata.get("from_config")
    ]


def _require_known(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for option in options:
        if option not in known:
            if not known:
                raise ValueError(f"task.{option}: the task {name!r} has no options; leave it out")
            raise ValueError(
                f"task.{option}: unknown option of {name!r}{did_you_mean(option, known)}"
            )
