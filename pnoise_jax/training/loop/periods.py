"""The steps of runs whose batches depend on the weights, in periods between preparations."""

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from pnoise_jax.training.step.program import Program, advance
from pnoise_jax.training.step.step import TrainState
from pnoise_jax.training.task import Metrics, Task, model_parameters


def advance_in_periods(
    program: Program,
    task: Task,
    state: TrainState,
    constants: tuple[Any, ...],
    *,
    steps: range,
    prepare: Callable[[int, TrainState], TrainState],
    watch: Callable[[Iterable[Any]], Iterator[Any]],
) -> Generator[tuple[TrainState, Metrics]]:
    """Makes the steps of a run, and prepares the batches of each period before its first step.

    For a task without preparations, the whole run is a single period.

    Args:
      program, state, constants: the arguments of `program.advance`.
      task: opens the batches.
      steps: the steps to make, up to the last of the run.
      prepare: maps a step and the state before it to a new state; called before the steps in
        `Task.preparations`.
      watch: wraps the batches, such as `Window.watch`.

    Yields:
      As `program.advance`.
    """
    due = {step for step in task.preparations if step in steps}
    for first, end in itertools.pairwise(sorted({steps.start, *due, steps.stop})):
        if first in due:
            state = prepare(first, state)
        with task.open_period(first, state.task) as batches:
            period = watch(itertools.islice(batches, end - first))
            for moved, metrics in advance(program, state, period, constants, start=first):
                state = moved
                yield state, metrics


def prepare_period(
    task: Task, state: TrainState, step: int, *, mesh: Mesh, report: Callable[[str], None]
) -> TrainState:
    """Run `Task.prepare` and return the state with the result, placed like before.

    Raises:
      ValueError: the task returns arrays of other names, shapes or dtypes than it was given.
    """
    variables = {"params": model_parameters(state.params), "batch_stats": state.batch_stats}
    prepared = dict(task.prepare(variables, state.task, step, mesh=mesh, report=report))
    before, after = (jax.tree.map(jax.typeof, tree) for tree in (dict(state.task), prepared))
    shapes = [
        {jax.tree_util.keystr(path): (x.shape, x.dtype) for path, x in jax.tree.leaves_with_path(t)}
        for t in (before, after)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{type(task).__name__}.prepare was given {shapes[0]} but returned {shapes[1]}: return "
            "arrays of the same names, shapes and dtypes"
        )
    places = jax.tree.map(lambda x: x.sharding, dict(state.task))
    prepared = jax.device_put(prepared, places)
    return dataclasses.replace(state, task=prepared)
