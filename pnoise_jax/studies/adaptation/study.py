"""The study of one pair of domains: trains missing runs, measures, and writes the results."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from rich.console import Console

from pnoise_jax import data, runs
from pnoise_jax.noise import injections_from_config
from pnoise_jax.runs import BASE_CONFIG, RunDirectory, write_config
from pnoise_jax.studies.adaptation import measuring, reference, report, summary, wording
from pnoise_jax.studies.adaptation.methods import (
    TARGET_LABELS,
    Overrides,
    StudyRun,
    build_runs,
    choose,
)
from pnoise_jax.studies.sweep.cells import as_text
from pnoise_jax.studies.training_runs import require_no_run, train_missing
from pnoise_jax.terminal import create_console, printable
from pnoise_jax.training import differing, run_config
from pnoise_jax.writing import replace_file, require_places

SEEDS = (0, 1, 2)
VERSION = 1  # of adaptation.json


def run_adaptation(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    *,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS,
    overrides: Overrides | None = None,
    metric: str | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains the methods that are missing in ``workdir``, and writes the table and the page.

    The methods always include source only, the upper bound trained on target labels, and every
    method without noise. The results are adaptation.json, adaptation.csv, and adaptation.html with
    its figures; runs/ contains the work directory of every run. If the call was stopped, the same
    call resumes.

    Args:
      config: the config of all runs. Its task section names the source, its data section the
        target, and its noise section the noise.
      workdir: the work directory of the study; created if necessary.
      methods: names from `METHODS` or ``overrides``; None selects all.
      seeds: seeds of the runs. With fewer than three there are no intervals.
      overrides: by method, the fields that it changes; "task.name" if the task has another name
        than the method. The weights "source_only" are those of the study's source-only run with the
        same seed.
      metric: "accuracy" or "per_class_mean"; None uses the data set's official metric.
      command: the command line, for the page.

    Returns:
      The content of adaptation.json.

    Raises:
      ValueError, OSError: the config, a method, the data or the work directory is invalid. This is
        raised before any training, and the message names the cause.
      NonFiniteLossError, StoppedError: as for `training.train`; finished runs are kept.
    """
    if jax.process_count() > 1:
        raise ValueError("a study runs on one host, on all of its devices; start it on one alone")
    overrides = overrides or {}
    require_overrides(overrides)
    metric = metric or reference.official_metric(config.data.name)
    rows = choose(methods, overrides, noise=bool(injections_from_config(config.noise)))
    directory = RunDirectory.at(workdir).path / "runs"
    study_runs = build_runs(config, rows, seeds, overrides, directory=directory)
    path = runs.make_writable(workdir)
    _claim(path, config)
    console = create_console()
    for run in study_runs:
        title = f"{run.method.label}, seed {run.seed}"
        train_missing(run.experiment, path / "runs" / run.name, title=title, console=console)
    measured = [_measure(run, path, console) for run in study_runs]
    table = summary.summarise(measured, metric=metric)
    content = _content(config, overrides, measured, table, metric, command)
    content["sentences"] += _on_upper_bound(study_runs)
    replace_file(path / "adaptation.json", json.dumps(content, indent=1) + "\n")
    replace_file(path / "adaptation.csv", report.rows_text(content["rows"]))
    report.print_table(console, content, table)
    for written in report.write_page(path, content, table, study_runs, measured):
        console.print(f"wrote {printable(str(written))}", soft_wrap=True)
    for sentence in _left_out(path, study_runs):
        console.print(sentence, style="yellow", soft_wrap=True)
    return content


def require_overrides(overrides: Overrides) -> None:
    """Raises ValueError unless each method has a dict of fields."""
    for method, fields in overrides.items():
        if not hasattr(fields, "items"):
            raise ValueError(
                f"methods() gives {fields!r} for {method!r}: give a dict of dotted fields, such as "
                "{'task.domain_weight': 0.1}"
            )


def _claim(path: Path, config: ml_collections.ConfigDict) -> None:
    """Claims the directory for this study, or checks that it already belongs to it.

    Raises:
      ValueError: it contains a run, or a study of another pair or config; the message lists the
        fields that differ.
    """
    named = f"--workdir={str(path)!r}"
    files = ("adaptation.json", "adaptation.csv", "adaptation.html", BASE_CONFIG)
    require_places(path, named=named, files=files, directories=("runs", "measured"))
    require_no_run(path)
    if (path / BASE_CONFIG).exists():
        stored = run_config.read_config(path, name=BASE_CONFIG)
        changed = differing(stored, config)
        changed.pop("seed", None)
        if changed:
            before, now = describe_pair(stored), describe_pair(config)
            pair = f" of another pair, {before} there and {now} now" if before != now else ""
            listed = "; ".join(
                f"{k}: {old!r} there, {new!r} now" for k, (old, new) in changed.items()
            )
            raise ValueError(
                f"{named} contains a study{pair or ' of another config'} ({listed}): choose "
                "another directory, or set these fields back"
            )
    else:
        write_config(path / BASE_CONFIG, config)
    for directory in ("runs", "measured"):
        (path / directory).mkdir(exist_ok=True)


def describe_pair(config: ml_collections.ConfigDict) -> str:
    """Describes the pair: "visda2017 (train) to visda2017 (train, tested on validation)"."""
    task, section = config.task, config.data
    source = f"{task.get('source')} ({task.get('source_split')})"
    return f"{source} to {section.name} ({section.train_split}, tested on {section.test_split})"


def _measure(run: StudyRun, path: Path, console: Console) -> measuring.Measured:
    kept = path / "measured" / f"{run.name}.npz"
    return measuring.measure(run, path / "runs" / run.name, kept, report=console.print)


def _left_out(path: Path, study_runs: Sequence[StudyRun]) -> list[str]:
    """Names the runs of earlier calls that are missing in the table of this one."""
    measured = {file.stem for file in (path / "measured").glob("*.npz")}
    others = sorted(measured - {run.name for run in study_runs})
    if not others:
        return []
    return [
        f"note: the tables leave out {printable(', '.join(others))}, measured by an earlier call: "
        "to show them as well, give their methods and seeds, too"
    ]


def _on_upper_bound(runs: Sequence[StudyRun]) -> list[str]:
    upper = next(run.experiment for run in runs if run.method.name == TARGET_LABELS)
    shared = data.count_shared(upper.test_data, upper.train_data)
    return wording.on_upper_bound(shared, len(upper.test_data))


def _set_fields(section: dict[str, Any]) -> dict[str, Any]:
    """Returns a section without its unset fields."""
    fields = {k: _set_fields(v) if isinstance(v, dict) else v for k, v in section.items()}
    return {k: v for k, v in fields.items() if v not in (None, {})}


def overrides_as_text(overrides: Overrides) -> dict[str, dict[str, str]]:
    """Returns what methods change, in the format of adaptation.json."""
    return {
        method: {field: as_text(value) for field, value in fields.items()}
        for method, fields in overrides.items()
    }


def _content(
    config: ml_collections.ConfigDict,
    overrides: Overrides,
    measured: Sequence[measuring.Measured],
    table: Sequence[summary.Row],
    metric: str,
    command: str | None,
) -> dict[str, Any]:
    """Returns the content of adaptation.json."""
    return {
        "version": VERSION,
        "pair": describe_pair(config),
        "data": config.data.name,
        "model": config.model.name,
        "metric": metric,
        "seeds": sorted({run.seed for run in measured}),
        "batch_size": config.batch_size,
        "evaluation_batch_size": config.evaluation.batch_size,
        "noise": _set_fields(config.noise.to_dict()),
        "overrides": overrides_as_text(overrides),
        "rows": [row for run in measured for row in measuring.rows_of(run)],
        "table": summary.as_json(table),
        "sentences": wording.sentences(table, metric=metric),
        "command": command and printable(command),
        "config": json.loads(config.to_json_best_effort()),
    }
