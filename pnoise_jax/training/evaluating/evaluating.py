"""The evaluation of a run or of imported weights, and its report."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import evaluation, parallel, runs, writing
from pnoise_jax.evaluation import Protocol
from pnoise_jax.parallel import on_all_hosts
from pnoise_jax.runs import RunDirectory
from pnoise_jax.terminal import create_console
from pnoise_jax.training.evaluating.imported import match_on_all_hosts
from pnoise_jax.training.evaluating.restore import Run, import_weights, restore
from pnoise_jax.training.experiment import Experiment, build
from pnoise_jax.training.loop import agreement
from pnoise_jax.training.loop import console as screen
from pnoise_jax.training.run_files import reports, run_config
from pnoise_jax.training.step.precision import config_types


@config_types()
def evaluate(
    config: ml_collections.ConfigDict | None,
    workdir: str | os.PathLike,
    *,
    out: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """Evaluates the newest checkpoint in ``workdir`` and writes a report there.

    The report is evaluation.json if it is the same measurement as that file contains, or would
    contain at the end of the run; otherwise, and for a run that is not finished, a file in
    evaluations/ named by what was measured. If there is no run but the config names weights, these
    are evaluated as they are.

    Args:
      config: the run's config; its noise, evaluation and data sections may differ. None uses the
        one in the work directory.
      workdir: the work directory of a run of `train`; for weights, where to write the report.
      out: another directory for the report.

    Returns:
      The rows of the standard report.

    Raises:
      ValueError, OSError: as `train`; FileNotFoundError if there is no run or no checkpoint.
      StoppedError: a signal arrived; no report is written.
    """
    with leaving_no_empty_place(workdir, out):
        agreement.require_shared_workdir(workdir, make=config is not None and bool(config.weights))
        console = create_main_console()
        show = functools.partial(console.print, soft_wrap=True, highlight=False)
        opened = open_run(config, workdir, show, place=functools.partial(open_place, workdir, out))
        run = opened.run
        show(screen.describe_noise(run.experiment))
        for sentence in run.experiment.describe_scoring():
            show(sentence)
        return report(run, opened.mesh, opened.path, console)


class Opened(NamedTuple):
    """A run to evaluate, the devices, and the directory for its report."""

    run: Run
    mesh: Mesh
    path: Path


def open_run(
    config: ml_collections.ConfigDict | None,
    workdir: str | os.PathLike,
    show: Callable[[str], None],
    *,
    place: Callable[[], Path],
) -> Opened:
    """Opens the newest checkpoint in ``workdir``, or the config's weights if there is no run.

    Args:
      config, workdir: the arguments of `evaluate`.
      show: called with sentences about weights and broken checkpoints.
      place: opens the directory of the report; called only if there is something to evaluate.
    """
    if config is not None and config.weights is not None and not RunDirectory.at(workdir).has_run():
        experiment = build(config)
        agreement.require_same_run(experiment, task="evaluate")
        matched = match_on_all_hosts(experiment, head="keep")
        assert matched is not None, "config.weights is set"
        path = on_all_hosts(place)
        mesh = _mesh(config)
        run = import_weights(experiment, matched, mesh=mesh)
        for sentence in (run.weights, *run.notes):
            show(sentence)
    else:
        stored = run_config.read_config(workdir)  # raises without a run, before `place`
        path = on_all_hosts(place)
        mesh = _mesh(stored if config is None else config)
        run = restore(workdir, config, mesh=mesh, report=show)
    return Opened(run, mesh, path)


def _mesh(config: ml_collections.ConfigDict) -> Mesh:
    """The mesh of the training run, or a mesh of these devices if its groups do not fit them."""
    for groups in (config.fsdp, config.tensor_parallel), (config.fsdp, 1):
        try:
            return parallel.training_mesh(*groups)
        except ValueError:
            continue
    return parallel.training_mesh()


def open_place(workdir: str | os.PathLike, out: str | os.PathLike | None) -> Path:
    """The directory of the report; raises OSError, before any work, if it is not writable."""
    flag, place = ("workdir", workdir) if out is None else ("out", out)
    if jax.process_index() != 0:
        return RunDirectory.at(place).path
    path = runs.make_writable(place, flag=flag, may_be_in_bucket=True)
    reports.require_places(path, named=f"--{flag}={str(place)!r}")
    return path


@contextlib.contextmanager
def leaving_no_empty_place(
    workdir: str | os.PathLike, out: str | os.PathLike | None
) -> Iterator[None]:
    """Removes the directories that the block creates for the report if it fails before writing."""
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            flags = {"workdir": workdir} if out is None else {"workdir": workdir, "out": out}
            for flag, place in flags.items():
                path = runs.locate(place, flag=flag).absolute()
                stack.enter_context(writing.removing_empty(path))
        yield


def report(
    run: Run, mesh: Mesh, path: Path, console: Console, *, final: bool = False
) -> list[dict[str, Any]]:
    experiment = run.experiment
    show = functools.partial(console.print, soft_wrap=True, highlight=False)
    task = experiment.task
    rows = measure(run, mesh, show)
    config = experiment.config
    evaluation.print_report(
        console,
        rows,
        measures=task.row_measures,
        title=f"{config.model.name} on {config.data.name} ({config.data.test_split}), "
        + (f"step {run.step}" if run.step else "weights as they are")
        + _classes(experiment),
        mixes_batch=any(each.noise.mixes_batch for each in experiment.evaluated_injections),
    )
    arrays = reports.digest_arrays(run.variables)
    if jax.process_index() == 0:
        written = write_report(run, rows, path, show, arrays=arrays, final=final)
        show(written.describe(rows, measure=task.row_measures[0]))
    return rows


def measure(run: Run, mesh: Mesh, show: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rows of the standard report, and any rows that average over draws."""
    task = run.experiment.task
    protocols = (*run.experiment.protocols, *task.averaged_protocols)
    return task.evaluate(run.variables, mesh, protocols, report=show)


def write_report(
    run: Run,
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    show: Callable[[str], None],
    *,
    arrays: str,
    final: bool = False,
) -> reports.Report:
    """Writes the rows of a run to the file of this measurement; see `reports.write`."""
    experiment, task = run.experiment, run.experiment.task
    config = experiment.config
    return reports.write(
        path,
        run,
        rows,
        arrays=arrays,
        final=final,
        show=show,
        step=run.step,
        dataset=config.data.name,
        split=config.data.test_split,
        weights=run.weights,
        notes=list(run.notes),
        scoring=experiment.describe_scoring(),
        injection=screen.describe_noise(experiment),
        units={m.name: m.unit for m in task.row_measures} | {"n": "examples"},
        device=jax.devices()[0].device_kind,
        jax=jax.__version__,
        config=json.loads(config.to_json_best_effort()),
    )


def _classes(experiment: Experiment) -> str:
    """Which logits count, for the title; empty if the test set has all classes."""
    dataset, counted = experiment.test_data, experiment.evaluated_data
    if counted.num_classes < dataset.num_classes:
        return f", {counted.num_classes} of {dataset.num_classes} classes"
    fewer = dataset.occurring is not None and len(dataset.occurring) < dataset.num_classes
    return f", all {dataset.num_classes} classes" if fewer else ""


def numbers_of(
    rows: Sequence[Mapping[str, Any]], measures: Sequence[evaluation.Measure]
) -> dict[str, float]:
    """The numbers of a report by row and measure, such as "clean/top1"."""
    names = [Protocol.of_row(row).name for row in rows]
    return {
        f"{name}/{measure.name}": row[measure.name]
        for name, row in zip(names, rows, strict=True)
        for measure in measures
    }


def create_main_console() -> Console:
    """A console on which only the first host prints."""
    return create_console(quiet=jax.process_index() != 0)
