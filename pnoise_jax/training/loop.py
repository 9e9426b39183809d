"""The training loop, and the evaluation of what it leaves."""

import contextlib
import dataclasses
import functools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import data, evaluation, parallel
from pnoise_jax.training import console as screen
from pnoise_jax.training import workdir as directories
from pnoise_jax.training.checkpoints import Checkpoints
from pnoise_jax.training.experiment import Experiment, build, check_training
from pnoise_jax.training.step import (
    TrainState,
    TrainStep,
    batch_sharding,
    jit_train_step,
    make_train_step,
)
from pnoise_jax.training.writers import MetricWriter


class NonFiniteLossError(ArithmeticError):
    """The loss or the gradient of a step is NaN or infinite."""


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Trains what ``config`` describes in ``workdir``, or goes on there; then evaluates it.

    The work directory gets config.json, checkpoints/, metrics.jsonl, TensorBoard event files and
    evaluation.json.

    Returns:
      The rows of the standard report.

    Raises:
      ValueError, OSError: bad config, data or work directory, named, before anything is compiled.
      NonFiniteLossError: names the step and the last whole checkpoint.
    """
    experiment = build(config)
    check_training(experiment)
    path = directories.claim(workdir, config)
    console = _console()
    screen.print_header(console, experiment)
    mesh = parallel.data_mesh()
    with contextlib.ExitStack() as stack:
        stack.enter_context(directories.lock(path))
        checkpoints = stack.enter_context(_open_checkpoints(path, config, console))
        like = experiment.abstract_state(mesh)
        _require_room(experiment, like, checkpoints)
        restored = checkpoints.restore(like)
        if restored is None:
            create = jax.jit(experiment.initial_state, out_shardings=parallel.replicated(mesh))
            state, step = create(jax.random.key(config.seed)), 0
        else:
            state, step = restored
            console.print(f"going on from the checkpoint of step {step}")
        with _naming_last_checkpoint(path, checkpoints):
            state = _run(experiment, mesh, state, step, checkpoints, path, console)
    return _report(experiment, state, mesh, path, console)


def evaluate(
    config: ml_collections.ConfigDict | None, workdir: str | os.PathLike
) -> list[dict[str, Any]]:
    """Evaluates the newest checkpoint in ``workdir`` and writes evaluation.json there.

    Args:
      config: the run's, whose noise, evaluation and data sections may differ; None takes the run's
        own from the work directory.
      workdir: one that `train` has filled.

    Returns:
      The rows of the standard report.

    Raises:
      ValueError, OSError: as `train`; FileNotFoundError where there is no run or no checkpoint.
    """
    stored = directories.read_config(workdir)
    path = Path(workdir).expanduser().absolute()
    if config is None:
        config = stored
    else:
        directories.check(path, config, but=("noise.", "evaluation.", "data."))
    experiment = build(config)
    mesh = parallel.data_mesh()
    console = _console()
    with _open_checkpoints(path, config, console) as checkpoints:
        restored = checkpoints.restore(experiment.abstract_state(mesh), set_aside=False)
    if restored is None:
        raise FileNotFoundError(f"{path / 'checkpoints'} holds no checkpoint; train there first")
    console.print(screen.describe_noise(experiment))
    return _report(experiment, restored[0], mesh, path, console)


def _run(
    experiment: Experiment,
    mesh: Mesh,
    state: TrainState,
    start: int,
    checkpoints: Checkpoints,
    path: Path,
    console: Console,
) -> TrainState:
    """Trains from step ``start`` to the end."""
    total, every = experiment.total_steps, _Every.of(experiment)
    train_step = _compile(experiment, mesh)
    key = parallel.random_key(experiment.config.seed, mesh)
    sharding = batch_sharding(mesh, accumulate=experiment.config.accumulate)
    with contextlib.ExitStack() as stack:
        batches = stack.enter_context(_open_batches(experiment, start))
        writer = stack.enter_context(contextlib.closing(_writer(path, start)))
        progress = stack.enter_context(screen.progress_report(console, start=start, total=total))
        window = _Window(experiment)
        for step, local_batch in enumerate(batches, start + 1):
            batch = parallel.to_devices(local_batch, sharding)
            with jax.transfer_guard("disallow"):  # the step takes nothing else from the host
                state, metrics = train_step(state, batch, key)
            window.add(metrics)
            saves = step % every.save == 0 or step == total
            evaluates = step % every.evaluate == 0 and step < total
            if saves or evaluates or step % every.log == 0:
                summary = window.close(step, checkpoints)
                writer.write(step, summary)
                progress.report(step, summary)
            elif step == start + 1:
                window.restart_clock()  # the first one is compiled
            if saves:
                checkpoints.save(step, state)
                window.restart_clock()
            if evaluates:
                row = experiment.evaluate(state, mesh, experiment.protocols[:1])[0]
                writer.write(step, {f"clean/{name}": row[name] for name in ("top1", "top5", "nll")})
                window.restart_clock()
        checkpoints.wait()
    return state


@dataclasses.dataclass(frozen=True)
class _Every:
    """Steps from one report, checkpoint, evaluation to the next."""

    log: int
    save: int
    evaluate: int

    @classmethod
    def of(cls, experiment: Experiment) -> "_Every":
        config = experiment.config

        def steps(duration: str | None, field: str) -> int:
            if duration is None:
                return experiment.total_steps + 1
            number = experiment.steps(duration, field)
            if number < 1:
                raise ValueError(f"{field}={duration!r} is less than one step")
            return number

        return cls(
            log=steps(config.log_every, "log_every"),
            save=steps(config.checkpoint.every, "checkpoint.every"),
            evaluate=steps(config.evaluation.every, "evaluation.every"),
        )


def _open_checkpoints(
    path: Path, config: ml_collections.ConfigDict, console: Console
) -> contextlib.closing:
    report = functools.partial(console.print, soft_wrap=True)
    return contextlib.closing(
        Checkpoints(path / "checkpoints", keep=config.checkpoint.keep, report=report)
    )


def _require_room(experiment: Experiment, like: TrainState, checkpoints: Checkpoints) -> None:
    """For the checkpoints still to come: those to keep, and one more while it is written."""
    config = experiment.config
    saves = -(-experiment.total_steps // _Every.of(experiment).save)
    more = min(config.checkpoint.keep, saves) + 1 - checkpoints.count()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))
    directories.require_room(checkpoints.directory.parent, max(0, more) * size)


@contextlib.contextmanager
def _naming_last_checkpoint(path: Path, checkpoints: Checkpoints) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # one of ours, which says it already
            raise
        raise OSError(
            f"--workdir={str(path)!r}: {error.strerror}; the last whole checkpoint is "
            f"{checkpoints.describe_newest()}. Make room or make it writable, and start the same "
            "command again"
        ) from error


def _open_batches(experiment: Experiment, start: int) -> data.BatchIterator:
    config = experiment.config
    return data.train_batches(
        experiment.train_data,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        num_steps=experiment.total_steps,
        micro_batches=config.accumulate,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads,
    )


class _Window:
    """The metrics of the steps since the last report; they stay on the devices until then."""

    def __init__(self, experiment: Experiment):
        self._batch_size = experiment.config.batch_size
        self._schedule = experiment.schedule
        self._metrics: list[dict[str, jax.Array]] = []
        self._timed = 0  # steps since the clock started
        self._started = time.perf_counter()

    def add(self, metrics: dict[str, jax.Array]) -> None:
        self._metrics.append(metrics)
        self._timed += 1

    def restart_clock(self) -> None:
        """Leaves what happened since the last report out of the speed."""
        self._timed, self._started = 0, time.perf_counter()

    def close(self, step: int, checkpoints: Checkpoints) -> dict[str, float]:
        """Means over the window, which ends with ``step``, and its speed."""
        metrics = jax.device_get(self._metrics)
        # A finite loss with a gradient that is not would still save ruined parameters.
        health = np.array([m["loss"] + m["grad_norm"] for m in metrics])
        if not np.isfinite(health).all():
            first = int(np.flatnonzero(~np.isfinite(health))[0])
            checkpoints.wait()
            raise NonFiniteLossError(
                f"the loss or gradient of step {step - len(health) + 1 + first} is "
                f"{health[first]}; the last whole checkpoint is {checkpoints.describe_newest()}, "
                f"in {checkpoints.directory}. Lower optimizer.learning_rate or noise.strength, set "
                "optimizer.clip_norm, or lengthen optimizer.warmup"
            )
        summary = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        seconds = time.perf_counter() - self._started
        summary["learning_rate"] = float(self._schedule(step - 1))
        summary["steps_per_second"] = self._timed / seconds
        summary["examples_per_second"] = self._timed * self._batch_size / seconds
        self._metrics = []
        self.restart_clock()
        return summary


def _compile(experiment: Experiment, mesh: Mesh) -> TrainStep:
    config = experiment.config
    step = make_train_step(
        experiment.model,
        experiment.optimizer,
        mean=experiment.mean,
        std=experiment.std,
        label_smoothing=config.label_smoothing,
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
    )
    return jit_train_step(step, mesh, accumulate=config.accumulate)


def _report(
    experiment: Experiment, state: TrainState, mesh: Mesh, path: Path, console: Console
) -> list[dict[str, Any]]:
    rows = experiment.evaluate(state, mesh, experiment.protocols)
    config = experiment.config
    step = int(state.step)
    injection = experiment.model.injection
    evaluation.print_report(
        console,
        rows,
        title=f"{config.model.name} on {config.data.name} ({config.data.test_split}), step {step}",
        mixes_batch=injection is not None and injection.noise.mixes_batch,
    )
    if jax.process_index() == 0:
        evaluation.write_report(
            path / "evaluation.json",
            rows,
            step=step,
            dataset=config.data.name,
            split=config.data.test_split,
            weights="ema" if config.ema_decay is not None else "params",
            injection=screen.describe_noise(experiment),
            units={"top1": "percent", "top5": "percent", "nll": "nats, mean", "n": "examples"},
            device=jax.devices()[0].device_kind,
            jax=jax.__version__,
            config=json.loads(config.to_json_best_effort()),
        )
        console.print(f"wrote {path / 'evaluation.json'}", soft_wrap=True)
    return rows


class _NoWriter:
    """Of the hosts, the first writes."""

    def write(self, step: int, metrics: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


def _writer(path: Path, step: int) -> MetricWriter | _NoWriter:
    return MetricWriter(path, step=step) if jax.process_index() == 0 else _NoWriter()


def _console() -> Console:
    """Of the hosts, the first prints."""
    return Console(quiet=jax.process_index() != 0)
