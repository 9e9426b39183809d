"""Trains several runs together, in one program, by vmap."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data, stopping
from pnoise_jax.runs import Checkpoints, RunDirectory, Writers, lock, open_writers, require_room
from pnoise_jax.training.configuration.fields import flatten
from pnoise_jax.training.experiment import Experiment
from pnoise_jax.training.loop.window import Broken, NonFiniteLossError, Window
from pnoise_jax.training.step.precision import config_types
from pnoise_jax.training.step.program import Program, advance
from pnoise_jax.training.step.step import TrainState


@config_types()
def fit_together(
    experiments: Sequence[Experiment], paths: Sequence[Path], program: Program, *, size: int
) -> list[TrainState | NonFiniteLossError]:
    """Trains runs that differ only in seed and strength, from their first step, in one program.

    Every run sees the batches and keys that it would see alone, and leaves the same work directory,
    except that it has no checkpoints during training: an interrupted run starts again. A run whose
    loss or gradient is no longer finite does not stop the others. Works on one host only.

    Args:
      experiments: the runs, checked.
      paths: their work directories, claimed.
      program: a program created with ``together=True``.
      size: how many runs the program advances, at least ``len(experiments)``; the last run is
        repeated in the remaining places, so that fewer runs need no other program.

    Returns:
      For each run, the state after the last step, or the error if it broke down; that is not
      raised.

    Raises:
      ValueError: the task prepares batches from the weights.
      OSError: another process is training in a directory, or a checkpoint cannot be written; the
        checkpoints of the other runs are written.
      StoppedError: a signal arrived; what these runs have trained is lost.
    """
    if experiments[0].task.preparations:
        raise ValueError(
            f"the batches of {type(experiments[0].task).__name__} depend on the weights of each "
            "run: train one after another, with fit"
        )
    places = [*experiments, *[experiments[-1]] * (size - len(experiments))]
    with contextlib.ExitStack() as stack:
        are_there = [stack.enter_context(lock(path)) for path in paths]
        require_room(paths[0], len(paths) * program.state_bytes)
        writers = [
            stack.enter_context(contextlib.closing(_open_writers(experiment, path)))
            for experiment, path in zip(experiments, paths, strict=True)
        ]
        batches = stack.enter_context(open_together(places))
        states, broken = _run_together(places, program, batches, writers)
        results: list[TrainState | NonFiniteLossError] = []
        failures: list[OSError] = []
        for run, path in enumerate(paths):
            if (first := broken[run]) is not None:
                results.append(NonFiniteLossError(str(first)))
                continue
            results.append(_take(states, run))
            try:
                are_there[run]()
                with contextlib.closing(Checkpoints(path, keep=1)) as checkpoints:
                    checkpoints.save(experiments[0].total_steps, results[-1])
            except OSError as error:  # the other runs are still saved
                failures.append(error)
    if failures:
        raise failures[0]
    return results


def _run_together(
    places: Sequence[Experiment],
    program: Program,
    batches: Iterator[data.Batch],
    writers: Sequence[Writers],
) -> tuple[TrainState, list[Broken | None]]:
    """The states after the last step, and for each run the step at which it broke down, if any."""
    experiment = places[0]
    total = experiment.total_steps
    every = experiment.steps(experiment.config.log_every, "log_every")
    window = Window(experiment.config.batch_size, experiment.schedule)
    states, constants = start_together(places, program)
    broken: list[Broken | None] = [None] * len(places)
    for step, (moved, metrics) in enumerate(advance(program, states, batches, constants), 1):
        states = moved
        window.add(metrics)
        if step < total:
            stopping.check(
                f"after step {step} of {total} of several runs trained together",
                "none of these runs is saved",
            )
        if step % every == 0 or step == total:
            summary = window.close(step)
            broken = [old or new for old, new in zip(broken, summary.broken, strict=True)]
            for run, writer in enumerate(writers):
                if broken[run] is None:  # NaN is no JSON
                    metrics = {name: float(means[run]) for name, means in summary.metrics.items()}
                    writer.write(step, metrics)
            if all(broken):
                break
    return states, broken


@config_types()
def start_together(
    experiments: Sequence[Experiment], program: Program
) -> tuple[TrainState, tuple[jax.Array, ...]]:
    """The states before the first step and the constants of the step, stacked over the runs."""
    starts = [program.create(jax.random.key(each.config.seed)) for each in experiments]
    constants = [program.constants(each) for each in experiments]
    return _stack(starts), _stack(constants)


@contextlib.contextmanager
def open_together(experiments: Sequence[Experiment]) -> Iterator[Iterator[data.Batch]]:
    """Batches with a leading axis of runs; the batches for each seed are read once."""
    with contextlib.ExitStack() as stack:
        by_seed = {each.config.seed: each for each in experiments}
        streams = {
            seed: stack.enter_context(each.task.open_batches()) for seed, each in by_seed.items()
        }
        seeds = [each.config.seed for each in experiments]

        def stacked() -> Iterator[data.Batch]:
            for parts in zip(*streams.values(), strict=True):
                batches = dict(zip(streams, parts, strict=True))
                yield {key: np.stack([batches[seed][key] for seed in seeds]) for key in parts[0]}

        yield stacked()


def _open_writers(experiment: Experiment, path: Path) -> Writers:
    config = experiment.config
    fields = dict(flatten(config))
    return open_writers(RunDirectory(path), config.writers, config=fields, step=0)


@jax.jit
def _stack(trees: list) -> TrainState:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def _take(tree: TrainState, run: int) -> TrainState:
    return jax.tree.map(lambda leaf: leaf[run], tree)
