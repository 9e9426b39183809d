"""The compiled initialisation and step, shared by runs that differ only in seed and strength."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from pnoise_jax import parallel
from pnoise_jax.training.evaluating.imported import match_on_all_hosts, read_to_devices
from pnoise_jax.training.experiment import Experiment
from pnoise_jax.training.step.noise_schedules import make_scheduled
from pnoise_jax.training.step.step import (
    TrainState,
    TrainStep,
    batch_sharding,
    jit_train_step,
    make_train_step,
)
from pnoise_jax.training.task import Metrics

STEPS_AHEAD = 2  # enough for the devices always to have a next step


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The jitted functions of a training run, which cache their compiled code.

    Attributes:
      mesh: the devices.
      like: shapes, dtypes and shardings of the state of one run.
      create: computes the state before the first step from ``jax.random.key(seed)``.
      step: ``step(state, batch, *constants) -> state, metrics``.
      batches: the sharding of a batch.
      takes_strength: whether the noise's strength is one of the constants, traced.
    """

    mesh: Mesh
    like: TrainState
    create: Callable[[jax.Array], TrainState]
    step: TrainStep
    batches: NamedSharding
    takes_strength: bool

    @property
    def state_bytes(self) -> int:
        """The size of the state of one run, and so of a checkpoint, in bytes."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.like))

    def constants(self, experiment: Experiment) -> tuple[jax.Array, ...]:
        """The arguments of this run's step after state and batch: its key and any strengths."""
        key = parallel.random_key(experiment.config.seed, self.mesh)
        if not self.takes_strength:
            return (key,)
        strengths = np.array([each.noise.strength for each in experiment.injections], np.float32)
        if len(strengths) == 1:  # a scalar, so that models need not support several
            strengths = strengths[0]
        return key, jax.device_put(strengths, parallel.replicated(self.mesh))


def create_program(
    experiment: Experiment, mesh: Mesh, *, any_strength: bool = False, together: bool = False
) -> Program:
    """Create the program of a run; nothing is compiled before its functions are called.

    Args:
      experiment: the run.
      mesh: the devices.
      any_strength: make the noise's strength a traced argument, so that the program serves runs
        with any strength. The noise is the same as with a static strength, except for the
        strength's rounding.
      together: make the step advance several runs at once; see `jit_train_step`.
    """
    config, task = experiment.config, experiment.task
    for field in ("fsdp", "tensor_parallel"):
        if config[field] > 1 and not parallel.is_split(mesh):
            raise ValueError(
                f"{field}={config[field]}: here every device holds all parameters, because one "
                f"program trains several runs; set {field}=1, or train a single run with "
                "pnoise train"
            )
    takes_strength = any_strength and trains_with_noise(experiment)
    if takes_strength:  # a fixed value, so that the run's own strength is not compiled in
        injections = tuple(each.with_strength(1.0) for each in experiment.injections)
        task = dataclasses.replace(task, model=task.model.clone(injection=injections))
    step = make_train_step(
        task,
        experiment.optimizer,
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
        frozen=experiment.frozen,
        scheduled=_make_scheduled(experiment),
    )
    like = experiment.abstract_state(mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, like)
    return Program(
        mesh=mesh,
        like=like,
        create=_make_create(experiment, mesh, places),
        step=jit_train_step(
            step,
            mesh,
            places=places if parallel.is_split(mesh) else None,
            accumulate=config.accumulate,
            with_strength=takes_strength,
            together=together,
            reduce_dtype=config.reduce_dtype,
            matmul_split=experiment.matmul_split,
        ),
        batches=batch_sharding(mesh, accumulate=config.accumulate, together=together),
        takes_strength=takes_strength,
    )


def _make_scheduled(experiment: Experiment) -> Callable | None:
    """The strengths of the injections by step; None if none has a schedule."""
    factors = [
        None if each is None else experiment.factor_by_step(each, f"{injection.section}.schedule")
        for each, injection in zip(experiment.noise_schedules, experiment.injections, strict=True)
    ]
    return make_scheduled(experiment.injections, factors)


def _make_create(
    experiment: Experiment, mesh: Mesh, places: TrainState
) -> Callable[[jax.Array], TrainState]:
    """A function from the key to the state before the first step; it reads any weights."""
    if experiment.config.weights is None:
        return jax.jit(experiment.initial_state, out_shardings=places)
    # The weights are donated, so that the devices' memory contains them only once.
    start = jax.jit(experiment.initial_state, out_shardings=places, donate_argnums=1)

    def create(key: jax.Array) -> TrainState:
        matched = match_on_all_hosts(experiment)
        assert matched is not None, "config.weights is set"
        return start(key, read_to_devices(matched, mesh, experiment.matmul_split))

    return create


def trains_with_noise(experiment: Experiment) -> bool:
    """Whether any injection acts in training."""
    return any(each.train for each in experiment.injections)


def advance(
    program: Program,
    state: TrainState,
    batches: Iterable[Mapping[str, np.ndarray]],
    constants: tuple[Any, ...],
    *,
    start: int = 0,
) -> Iterator[tuple[TrainState, Metrics]]:
    """Makes one step for each batch: *the* loop, for one run or several trained together.

    It dispatches at most `STEPS_AHEAD` steps ahead of the devices, which store a batch for each.

    Args:
      program: the program with the step.
      state: the state before the first batch; it is donated.
      batches: this host's part of each batch.
      constants: from `Program.constants`.
      start: the number of steps made before, for the watchdog.

    Yields:
      The state, which is donated to the next step, and the step's metrics, still on the devices.
    """
    ahead = collections.deque()
    parallel.note_progress(f"step {start}")
    for step, local_batch in enumerate(batches, start + 1):
        batch = parallel.to_devices(local_batch, program.batches)
        with jax.transfer_guard("disallow"):  # nothing else may be copied from the host
            state, metrics = program.step(state, batch, *constants)
        ahead.append(metrics["loss"])
        if len(ahead) > STEPS_AHEAD:
            ahead.popleft().block_until_ready()
        parallel.note_progress(f"step {step - len(ahead)}")
        yield state, metrics
