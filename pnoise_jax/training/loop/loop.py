"""The training loop, and the evaluation at its end."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
from rich.console import Console

from pnoise_jax import parallel, runs, stopping
from pnoise_jax.parallel import on_all_hosts
from pnoise_jax.runs import Checkpoints, RunDirectory, Writers, open_writers
from pnoise_jax.terminal import create_console
from pnoise_jax.training.checks import as_config_errors, check_training
from pnoise_jax.training.configuration.fields import flatten
from pnoise_jax.training.evaluating import overlap
from pnoise_jax.training.evaluating.evaluating import create_main_console, numbers_of, report
from pnoise_jax.training.evaluating.imported import match_on_all_hosts
from pnoise_jax.training.evaluating.restore import Run
from pnoise_jax.training.experiment import Experiment, build
from pnoise_jax.training.loop import agreement
from pnoise_jax.training.loop import console as screen
from pnoise_jax.training.loop.intervals import Every, SaveClock
from pnoise_jax.training.loop.periods import advance_in_periods, prepare_period
from pnoise_jax.training.loop.profiling import Profiler
from pnoise_jax.training.loop.saving import (
    Saver,
    check_before_training,
    naming_a_lost_directory,
    stopping_last_evaluation,
)
from pnoise_jax.training.loop.window import Window
from pnoise_jax.training.run_files import data_version, run_config
from pnoise_jax.training.run_files.measured_settings import note_changes
from pnoise_jax.training.step.precision import config_types
from pnoise_jax.training.step.program import Program, create_program
from pnoise_jax.training.step.step import TrainState
from pnoise_jax.training.task import Metrics


@config_types()
def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Trains what ``config`` describes in ``workdir``, or resumes the run there; then evaluates it.

    The work directory gets config.json, checkpoints/, metrics.jsonl, TensorBoard event files and
    evaluation.json.

    Returns:
      The rows of the standard report.

    Raises:
      ConfigError: the config or the work directory is bad; names what is wrong, before anything is
        compiled.
      ValueError, OSError: the data or the work directory is bad, likewise.
      NonFiniteLossError: the loss or the gradient is not finite; names the step and the last whole
        checkpoint.
      StoppedError: a signal arrived that the main program listens to (`stopping.listen`); what
        was trained is saved.
    """
    with as_config_errors():
        experiment = build(config)
        check_training(experiment)
        experiment.task.check()
        _require_local_profile(config, workdir)
    agreement.require_same_run(experiment, task="train")
    agreement.require_shared_workdir(workdir, make=True)
    resumes = RunDirectory.at(workdir).has_checkpoint()
    imported = None if resumes else match_on_all_hosts(experiment)
    path, console = runs.make_writable(workdir, may_be_in_bucket=True), create_main_console()
    described = data_version.describe(experiment)
    if resumes and runs.is_in_bucket(path):  # before the lock, which stops another process there
        with as_config_errors():
            on_all_hosts(lambda: run_config.check(path, config, described=described))
    with runs.lock(path) as require_there:  # before the claim, which writes to the directory
        with as_config_errors():
            on_all_hosts(lambda: run_config.claim(path, config, described))
        screen.print_header(console, experiment, imported)
        if resumes:
            for sentence in data_version.unnoted(path, described):
                console.print(sentence, soft_wrap=True, highlight=False)
        program = create_program(
            experiment, parallel.training_mesh(config.fsdp, config.tensor_parallel)
        )
        state = _fit_locked(experiment, path, program, console, require_there)
        on_all_hosts(require_there)
        with stopping_last_evaluation(path, experiment.total_steps):
            run = dataclasses.replace(
                Run.of(experiment, state),
                notes=on_all_hosts(lambda: overlap.describe_overlap(experiment, config, path)),
            )
            for sentence in run.notes:
                console.print(sentence, soft_wrap=True, highlight=False)
            rows = report(run, program.mesh, path, console, final=True)
        with _open_writers(experiment, path, experiment.total_steps) as writers:
            writers.finish(numbers_of(rows, experiment.task.row_measures))
        return rows


@config_types()
def fit(
    experiment: Experiment, path: Path, program: Program, console: Console | None = None
) -> TrainState:
    """Trains or resumes a run in a claimed work directory; only restores a finished one.

    Args:
      experiment: the run, checked.
      path: its work directory; see `run_config.claim`.
      program: the program of this run, or of all runs that differ from it only in seed and
        strength.
      console: the console to print on; by default nothing is printed.

    Returns:
      The state after the last step.

    Raises:
      OSError: another process is training there, or the checkpoints do not fit or cannot be
        written.
      NonFiniteLossError, StoppedError: as `train`.
    """
    console = create_console(quiet=True) if console is None else console
    with runs.lock(path) as require_there:
        return _fit_locked(experiment, path, program, console, require_there)


def _fit_locked(
    experiment: Experiment,
    path: Path,
    program: Program,
    console: Console,
    require_there: Callable[[], None],
) -> TrainState:
    """`fit` in a directory that this process has locked; see `runs.lock`."""
    opened = _open_checkpoints(path, experiment.config, console)
    with naming_a_lost_directory(require_there), opened as checkpoints:
        _require_room(experiment, program, checkpoints)
        restored = checkpoints.restore(program.like)
        start = 0 if restored is None else restored[1]
        check_before_training(checkpoints, start, experiment.total_steps)
        if restored is None:
            state, step = program.create(jax.random.key(experiment.config.seed)), 0
        else:
            state, step = restored
            console.print(f"resuming from the checkpoint of step {step}")
            if step < experiment.total_steps:
                note = functools.partial(note_changes, path, experiment.config, step)
                for sentence in on_all_hosts(note):
                    console.print(sentence, soft_wrap=True, highlight=False)
        with _naming_last_checkpoint(path, checkpoints):
            training = _Training(experiment, program, checkpoints, path, console, require_there)
            return training.run(state, step)


class _Training:
    """The steps of a run, in a directory that this process has locked."""

    def __init__(
        self,
        experiment: Experiment,
        program: Program,
        checkpoints: Checkpoints,
        path: Path,
        console: Console,
        require_there: Callable[[], None],
    ):
        """Prepares the run; see `_fit_locked`."""
        self._experiment, self._program, self._checkpoints = experiment, program, checkpoints
        self._path, self._console, self._require_there = path, console, require_there
        self._total, self._every = experiment.total_steps, Every.of(experiment)
        self._window = Window(experiment.config.batch_size, experiment.schedule)

    def run(self, state: TrainState, start: int) -> TrainState:
        """Trains from step ``start`` to the end, or until a signal requests a stop."""
        experiment, window, total = self._experiment, self._window, self._total
        task = experiment.task
        window.resume(self._checkpoints.pending(start) if start else [])
        self._clock = SaveClock(self._every.seconds, start)
        self._saver = Saver(
            self._checkpoints, window, self._clock, require_there=self._require_there, total=total
        )
        self._first_steps = {start + 1}  # each may include compilation
        evaluates = self._every.evaluates(start, total)  # if it was stopped before this evaluation
        profiler = Profiler(experiment.config.profile, self._path / "profile")
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            self._writers = enter(_open_writers(experiment, self._path, start, evaluates=evaluates))
            enter(contextlib.closing(profiler))
            self._progress = enter(
                screen.progress_report(self._console, task, start=start, total=total)
            )
            if evaluates:
                self._evaluate(start, state)
            constants = self._program.constants(experiment)
            profiler.after(start)
            began = time.monotonic()
            steps = advance_in_periods(
                self._program,
                task,
                state,
                constants,
                steps=range(start, total),
                prepare=self._prepare,
                watch=window.watch,
            )
            for step, (state, metrics) in enumerate(enter(contextlib.closing(steps)), start + 1):
                if step == start + 1:
                    self._progress.compiled(time.monotonic() - began)
                profiler.after(step, metrics["loss"])
                self._after_step(step, state, metrics)
            self._checkpoints.wait()
        return state

    def _prepare(self, step: int, state: TrainState) -> TrainState:
        """The state after `Task.prepare`, before the task opens its batches from ``step`` on."""
        self._saver.require_finite(self._window.first_broken(step))
        with self._saver.stopping_evaluation(step, state):
            prepared = prepare_period(
                self._experiment.task,
                state,
                step,
                mesh=self._program.mesh,
                report=functools.partial(self._console.print, soft_wrap=True, highlight=False),
            )
        self._window.restart_clock()
        self._first_steps.add(step + 1)
        return prepared

    def _after_step(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Reports, saves and evaluates if due; raises StoppedError if a signal requests a stop."""
        self._window.add(metrics)
        stops = stopping.requested()
        saves = self._every.saves(step, self._total)
        evaluates = self._every.evaluates(step, self._total)
        if self._every.reports(step, self._total):  # a save need not: it keeps what is pending
            self._report(step)
        elif step in self._first_steps:
            self._window.restart_clock()  # leaves out the time to compile
        if saves or stops or self._clock.is_due(step):
            self._saver.save(step, state)
        if stops and step < self._total:
            raise self._saver.stopped(step)
        if evaluates:
            self._evaluate(step, state)

    def _report(self, step: int) -> None:
        """Writes and shows the metrics since the last report."""
        on_all_hosts(self._require_there)
        summary = self._window.close(step)
        self._saver.require_finite(summary.broken[0])
        values = {name: float(value) for name, value in summary.metrics.items()} | summary.speed
        self._writers.write(step, values)
        self._progress.report(step, values)

    def _evaluate(self, step: int, state: TrainState) -> None:
        """Evaluates during training, without noise."""
        experiment, task = self._experiment, self._experiment.task
        with self._saver.stopping_evaluation(step, state):
            protocols = experiment.protocols[:1]
            row = task.evaluate(state.variables(), self._program.mesh, protocols)[0]
            self._writers.write(step, {f"clean/{m.name}": row[m.name] for m in task.row_measures})
            self._progress.evaluated(step, row)
            self._window.restart_clock()


@contextlib.contextmanager
def _open_checkpoints(
    path: Path, config: ml_collections.ConfigDict, console: Console
) -> Iterator[Checkpoints]:
    """Opens the checkpoints and closes them at the end, unless only this host has failed.

    In that case, a save in progress would wait for the other hosts, which wait for a step of this
    one.
    """
    report = functools.partial(console.print, soft_wrap=True)
    checkpoints = Checkpoints(path, keep=config.checkpoint.keep, report=report)
    try:
        yield checkpoints
    except BaseException as error:
        if isinstance(error, stopping.StoppedError) or not parallel.are_several():
            checkpoints.close()
        raise
    checkpoints.close()


def _require_local_profile(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Raises ValueError for a profile of a run in a bucket, or a URL that is not of a folder."""
    if runs.is_in_bucket(runs.locate(workdir)) and config.profile is not None:
        raise ValueError(
            f"profile={config.profile!r}: a profile is written to a file system, but --workdir="
            f"{str(workdir)!r} is in a bucket: profile in a directory on this machine"
        )


def _require_room(experiment: Experiment, program: Program, checkpoints: Checkpoints) -> None:
    """Raises OSError without room for the remaining checkpoints and one that is being written."""
    config, every = experiment.config, Every.of(experiment)
    saves = -(-experiment.total_steps // every.save)  # by steps; the clock may add more
    more = min(config.checkpoint.keep, saves) + 1 - checkpoints.count()
    needed = max(0, more) * program.state_bytes
    runs.require_room(checkpoints.directory.parent, needed)


@contextlib.contextmanager
def _naming_last_checkpoint(path: Path, checkpoints: Checkpoints) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # raised by this package, with a complete message
            raise
        raise OSError(
            f"--workdir={str(path)!r}: {error.strerror}; the last whole checkpoint is "
            f"{checkpoints.describe_newest()}. Make room or make it writable, and start the same "
            "command again"
        ) from error


def _open_writers(
    experiment: Experiment, path: Path, step: int, *, evaluates: bool = False
) -> contextlib.closing[Writers]:
    """The writers of a run; only those of the first host write anything."""
    if jax.process_index() != 0:
        return contextlib.closing(Writers([]))
    config = experiment.config
    return contextlib.closing(
        open_writers(
            RunDirectory(path),
            config.writers,
            config=dict(flatten(config)),
            step=step,
            evaluates=evaluates,
        )
    )
