"""Sweeps: many cells, each trained at most once and evaluated by the standard protocols."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import parallel, stopping, training
from pnoise_jax.runs import make_writable
from pnoise_jax.studies.sweep import results as sweep_results
from pnoise_jax.studies.sweep import shards
from pnoise_jax.studies.sweep import summary as sweep_summary
from pnoise_jax.studies.sweep.cells import Cell, Overrides, build_cells, describe_unused
from pnoise_jax.studies.sweep.results import PROTOCOLS, Results
from pnoise_jax.studies.sweep.shards import Shard
from pnoise_jax.studies.sweep.summary import Group
from pnoise_jax.studies.sweep.trainer import WAYS, Ended, Trainer, Training, plan
from pnoise_jax.terminal import create_console, printable
from pnoise_jax.training import data_version


def run_sweep(
    base: ml_collections.ConfigDict,
    overrides: Iterable[Overrides],
    workdir: str | os.PathLike,
    *,
    together: str = "auto",
    shard: Shard | None = None,
    set_by_flags: Iterable[str] = (),
    clean_only: bool = False,
    console: Console | None = None,
) -> list[Group]:
    """Trains and evaluates all cells that are not finished yet, and writes a summary.

    Cells that differ only in the evaluation section share one training. So do cells that train
    without noise, whatever their noise in evaluation. Trainings that differ only in seed and
    strength share one compiled program. The work directory gets results.csv, summary.csv,
    figure.svg and figure.png, and for each training a work directory in runs/, which
    `training.evaluate` accepts.

    Args:
      base: the config that all cells share.
      overrides: the overrides of each cell, {dotted field: value}; see `product`.
      workdir: the work directory, created if missing. An existing sweep there is resumed: finished
        trainings and cells are not repeated.
      together: whether to train the runs of one program together: "never", "always", or "auto",
        which chooses the faster way by measuring both.
      shard: the part of the trainings to run here, with the cells that need them. Other processes
        run the other parts in the same work directory, at the same time or at any other time. None
        runs everything that is missing.
      set_by_flags: fields set on the command line; no cell may set them.
      clean_only: evaluate only without noise, even the cells that have noise.
      console: the console to print on.

    Returns:
      The groups of cells that agree in everything but the seed; empty if a shard finishes while
      cells of other shards are still missing.

    Raises:
      ValueError, OSError: a cell or the work directory is invalid; the message names it, and
        nothing has been trained. Later: the evaluation of a cell is not finite, or a work directory
        in runs/ is damaged.
      NonFiniteLossError: some trainings diverged; the message names them, and all others are
        finished.
      StoppedError: a signal arrived; finished cells are kept.
    """
    _require_possible(together)
    console = create_console() if console is None else console
    cells = build_cells(base, overrides, set_by_flags=set_by_flags)
    if not sweep_results.has_results(workdir):
        distinct = {(c.experiment.config.weights, c.experiment.model): c for c in cells}
        for cell in distinct.values():  # raise before anything is written
            cell.experiment.match_weights()
    path = make_writable(workdir)
    described = _describe_data(base, cells)
    claim = functools.partial(sweep_results.claim, path, base, described)
    with _locked(path, shard, claim):
        results = Results(path, base, list(cells[0].values), shard)
        _require_same_trainings(cells, results, path)
        if shard is None:
            results.merge_shards()
        for sentence in describe_unused(cells):
            console.print(f"note: {sentence}", style="yellow", soft_wrap=True)
        ours = _cells_of(shard, cells, path)
        if shard is not None:
            console.print(f"shard {shard}: {len(ours)} of the sweep's {len(cells)} cells")
        try:
            _finish(ours, results, path, together, console, clean_only)
        except stopping.StoppedError as stopped:
            raise _sum_up_stop(stopped, ours, results) from None
        if shard is not None:
            results = Results(path, base, list(cells[0].values))  # now with the rows of all shards
            missing = sum(results.get(cell) is None for cell in cells)
            if missing:
                console.print(_what_is_missing(shard, missing, len(cells)), soft_wrap=True)
                return []
            results.write()
        return _sum_up(cells, results, path, console)


def _require_possible(together: str) -> None:
    if together not in WAYS:
        raise ValueError(f"--together={together!r}: choose one of {', '.join(WAYS)}")
    if jax.process_count() > 1:
        raise ValueError(
            f"{jax.process_count()} hosts: a sweep runs on one host; start it there without "
            "--multi_host, or give each host a part of it with --shard=INDEX/COUNT"
        )


@contextlib.contextmanager
def _locked(path: Path, shard: Shard | None, claim: Callable[..., None]) -> Iterator[None]:
    """Locks the work directory and claims it, before anything changes there."""
    if shard is None:
        with shards.lock_all(path):
            claim()
            yield
    else:
        with shards.lock_for_shard(path, lambda others: claim(in_use=others)):
            yield


def _require_same_trainings(cells: Sequence[Cell], results: Results, path: Path) -> None:
    """Raises ValueError if a row was measured with other weights or data than its cell has now.

    Rows are looked up by the names of weights and data, which a cell may set. Their contents are
    recorded with the trainings. A row whose training was deleted is accepted unchecked.
    """
    rows = {id(cell): row for cell in cells if (row := results.get(cell)) is not None}
    finished = [cell for cell in cells if id(cell) in rows]
    for run in itertools.chain(*plan(finished, path / "runs")):
        directories = {path / rows[id(cell)]["run"]: cell for cell in run.cells}
        for directory, cell in directories.items():
            if directory.is_dir():
                run.require_same(directory, cell.name)


def _cells_of(shard: Shard | None, cells: Sequence[Cell], path: Path) -> Sequence[Cell]:
    """Returns the cells of a shard: those of every n-th training, ordered by its first cell.

    Finished cells are divided among the shards too, so the parts do not depend on when a shard
    starts. Cells that share a training stay together.
    """
    if shard is None:
        return cells
    runs = [run for program in plan(cells, path / "runs") for run in program]
    position = {id(cell): number for number, cell in enumerate(cells)}
    runs.sort(key=lambda run: position[id(run.cells[0])])
    return [cell for run in shard.share(runs) for cell in run.cells]


def _what_is_missing(shard: Shard, missing: int, count: int) -> str:
    return (
        f"shard {shard} has finished its part; {missing} of the {count} cells are still missing, "
        "and belong to other shards. The shard that finishes last writes the summary; so does "
        "the same command without --shard, which also trains whatever is still missing"
    )


def _describe_data(base: ml_collections.ConfigDict, cells: Sequence[Cell]) -> dict[str, Any] | None:
    """Describes the base config's data, as loaded by a cell; None if no cell uses them."""
    same = (cell.experiment for cell in cells if cell.experiment.config.data == base.data)
    experiment = next(same, None)
    return None if experiment is None else data_version.describe(experiment)


def _finish(
    cells: Sequence[Cell],
    results: Results,
    path: Path,
    together: str,
    console: Console,
    clean_only: bool,
) -> None:
    """Trains and evaluates the cells that have no row yet."""
    missing = [cell for cell in cells if results.get(cell) is None]
    programs = plan(missing, path / "runs")
    count = sum(map(len, programs))
    console.print(
        f"{len(cells)} cells, {len(cells) - len(missing)} of them already finished; remaining: "
        f"{count} trainings in {len(programs)} programs",
    )
    mesh = parallel.data_mesh()
    trainer = Trainer(path / "runs", mesh, console, together=together)
    (path / "runs").mkdir(exist_ok=True)
    trainer.choose(programs)
    done, started = 0, time.perf_counter()
    broken: dict[str, training.NonFiniteLossError] = {}  # by the run's name
    for runs in programs:
        stopping.check("between two programs")
        for group in trainer.train(runs):
            _evaluate_runs(group, results, path, mesh, console, clean_only)
            broken |= {
                run.name: end for run, end in group if isinstance(end, training.NonFiniteLossError)
            }
            done += len(group)
            names = "; ".join(
                run.name + ("" if _is_sound(end) else " (diverged)") for run, end in group
            )
            seconds = time.perf_counter() - started
            console.print(f"{done}/{count} in {seconds:.0f} s: {names}")
    _require_sound(broken, count, results.file)


def _sum_up_stop(
    stopped: stopping.StoppedError, cells: Sequence[Cell], results: Results
) -> stopping.StoppedError:
    finished = sum(results.get(cell) is not None for cell in cells)
    return stopped.with_kept(
        f"{finished} of {len(cells)} cells are finished and have a row in {results.file}"
    )


def _require_sound(broken: dict[str, training.NonFiniteLossError], count: int, file: Path) -> None:
    if broken:
        reasons = "; ".join(f"{name}: {error.reason}" for name, error in broken.items())
        raise training.NonFiniteLossError(
            f"{len(broken)} of {count} trainings diverged; the others are finished and in "
            f"{file.name} ({reasons})",
            "Leave these out of sweep(), or lower optimizer.learning_rate or their noise.strength, "
            "and run the command again; it writes the summary once all cells have a row",
        )


def _is_sound(end: training.TrainState | training.NonFiniteLossError) -> bool:
    return not isinstance(end, training.NonFiniteLossError)


def _evaluate_runs(
    group: Sequence[Ended],
    results: Results,
    path: Path,
    mesh: Mesh,
    console: Console,
    clean_only: bool,
) -> None:
    """Adds rows for the cells of these runs, up to the first that cannot be evaluated."""
    try:
        for run, state in group:
            if not isinstance(state, training.NonFiniteLossError):
                where = run.directory(path / "runs").relative_to(path)
                for cell, measures in _evaluate_cells(run, state, mesh, clean_only):
                    results.add(cell, measures | {"run": where})
    finally:
        _write_results(results, path, console)


def _write_results(results: Results, path: Path, console: Console) -> None:
    """Writes the rows; prints them if that fails."""
    try:
        results.write()
    except OSError as error:
        console.print(results.text(), soft_wrap=True)
        reason = error.strerror or error
        raise OSError(
            f"--workdir={str(path)!r}: {results.file.name} cannot be written ({reason}): "
            "its content is printed above. Free some space or make it writable, and the same "
            "command evaluates these cells again; their trainings are kept in runs/"
        ) from error


def _evaluate_cells(
    run: Training, state: training.TrainState, mesh: Mesh, clean_only: bool
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Yields the cells of a run with their measures; the clean protocol is not repeated."""
    clean: dict[tuple[int, str, str], list[dict[str, Any]]] = {}  # keyed by all that it depends on
    for cell in run.cells:
        experiment = _without_training_noise(cell.experiment)
        config, protocols = experiment.config, experiment.protocols[: 1 if clean_only else None]
        key = config.evaluation.views, config.evaluation.classes, str(config.data)
        try:
            if key not in clean:
                clean[key] = experiment.task.evaluate(state.variables(), mesh, protocols[:1])
            rows = [*clean[key], *experiment.task.evaluate(state.variables(), mesh, protocols[1:])]
        except ValueError as error:
            raise ValueError(f"{cell.name}: {error}") from None
        measures: dict[str, Any] = {"updates": int(state.step), "n": rows[0]["n"]}
        measures |= dict.fromkeys(sweep_results.MEASURES)
        for protocol, row in zip(PROTOCOLS, rows, strict=False):
            measures |= {f"{protocol}_{name}": row[name] for name in ("top1", "nll")}
        yield cell, measures


def _without_training_noise(experiment: training.Experiment) -> training.Experiment:
    """Returns the experiment with train=False in every injection, which inference ignores.

    The switch is static: cells that differ in it would otherwise compile twice.
    """
    injections = tuple(dataclasses.replace(each, train=False) for each in experiment.injections)
    return dataclasses.replace(experiment, model=experiment.model.clone(injection=injections))


def _digest(cells: Sequence[Cell]) -> str:
    values = sorted(sorted(cell.values.items()) for cell in cells)
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]


def _sum_up(cells: Sequence[Cell], results: Results, path: Path, console: Console) -> list[Group]:
    groups = sweep_summary.summarise(cells, results)
    config = cells[0].experiment.config
    title = f"{len(cells)} cells on {config.data.name} ({config.data.test_split})"
    sweep_summary.print_summary(console, groups, title=title)
    others = results.others(cells)
    part = f"-{_digest(cells)}" if others else ""  # never replace a summary of other cells
    written = [path / "results.csv", path / f"summary{part}.csv"]
    sweep_summary.write_summary(written[-1], groups)
    written += sweep_summary.write_figure(path, groups, part)
    if len(written) == 2:
        console.print("no figure: no number is swept over three values or more")
    if others:
        console.print(
            f"results.csv keeps {others} row(s) of cells that are not in this sweep; the summary "
            f"leaves them out, and is named after its cells: {written[1].name}",
            soft_wrap=True,
        )
    for file in written:
        console.print(f"wrote {printable(str(file))}", soft_wrap=True)
    return groups
