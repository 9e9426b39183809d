"""Evaluates a run, or weights, on several test sets of the same classes, in one table."""

import copy
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pnoise_jax import data, parallel, writing
from pnoise_jax.data import class_names, imagenet_sets
from pnoise_jax.evaluation import EXPLANATION, Protocol, corruption_error
from pnoise_jax.parallel import on_all_hosts
from pnoise_jax.runs import RunDirectory
from pnoise_jax.terminal import printable
from pnoise_jax.training.evaluating import overlap
from pnoise_jax.training.evaluating.evaluating import (
    create_main_console,
    leaving_no_empty_place,
    measure,
    open_place,
    open_run,
    write_report,
)
from pnoise_jax.training.evaluating.restore import Run
from pnoise_jax.training.experiment import build
from pnoise_jax.training.loop import agreement
from pnoise_jax.training.run_files import data_version, reports, run_config
from pnoise_jax.training.step.precision import config_types

_KNOWN = ("imagenet2012", *imagenet_sets.NAMES)


@config_types()
def evaluate_sets(
    config: ml_collections.ConfigDict | None,
    workdir: str | os.PathLike,
    sets: Sequence[str],
    *,
    out: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Evaluates the newest checkpoint, or weights, on several sets, and prints a table of them.

    Each set gets a separate report, as from `evaluate`; a set whose report exists is not measured
    again. The table is also written to a file in evaluations/.

    Args:
      config, workdir, out: the arguments of `evaluate`; the data section is set for each set.
      sets: names of ImageNet's test sets, each in its only split; "imagenet2012_corrupted" means
        the 15 corruptions of the benchmark at 5 severities.

    Returns:
      The content of the table's file.

    Raises:
      ValueError, OSError: as `evaluate`; FileNotFoundError if a set has not been prepared, before
        anything is evaluated.
    """
    names = expand(sets)
    with leaving_no_empty_place(workdir, out):
        return _evaluate(config, workdir, names, out)


def _evaluate(
    config: ml_collections.ConfigDict | None,
    workdir: str | os.PathLike,
    names: Sequence[str],
    out: str | os.PathLike | None,
) -> dict[str, Any]:
    base = run_config.read_config(workdir) if config is None else config
    agreement.require_shared_workdir(workdir, make=config is not None and bool(config.weights))
    on_all_hosts(lambda: _require_prepared(names, base.data.data_dir))
    console = create_main_console()
    show = functools.partial(console.print, soft_wrap=True, highlight=False)
    place = functools.partial(open_place, workdir, out)
    opened = open_run(config_for(base, names[0]), workdir, show, place=place)
    _require_classification(opened.run)
    path = opened.path
    measured = []
    for name in names:
        run = opened.run if name == names[0] else _on(opened.run, config_for(base, name), workdir)
        if run is not opened.run:  # the notes of `opened.run` were shown when it was opened
            for note in run.notes:
                show(note)
        measured.append(_measured(name, run, opened.mesh, path, show))
    content = _table_content(opened.run, measured)
    print_table(console, content)
    if jax.process_index() == 0:
        show(f"wrote {_write(path, content)}")
    return content


def _require_classification(run: Run) -> None:
    if not run.experiment.task.classifies:
        raise ValueError(
            f"--sets compares accuracies, but task.name={run.experiment.config.task.name!r} "
            "classifies nothing: evaluate a run of a task that classifies"
        )


def expand(sets: Sequence[str]) -> list[str]:
    """The names of the single data sets in ``sets``, with "imagenet2012_corrupted" expanded.

    Raises:
      ValueError: there are none, one appears twice, or a name is unknown.
    """
    names: list[str] = []
    for name in sets:
        if name == imagenet_sets.CORRUPTED:
            names += [
                f"{name}/{corruption}_{severity}"
                for corruption in imagenet_sets.BENCHMARK
                for severity in imagenet_sets.SEVERITIES
            ]
        elif name in _KNOWN:
            names.append(name)
        else:
            known = ("imagenet2012", *imagenet_sets.FIXED_NAMES, imagenet_sets.CORRUPTED)
            raise ValueError(f"--sets: {name!r} is unknown{data.suggest(name, known)}")
    if not names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        reason = "there are none" if twice is None else f"{twice!r} appears twice"
        raise ValueError(f"--sets: {reason}; give each once, such as imagenet_a,imagenet_r")
    return names


def config_for(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """A copy of the config with this set as its test split.

    The published images of ImageNet-C are cropped already, so they are only resized to the size of
    the model's images, if it differs.
    """
    config = copy.deepcopy(config)
    config.data.name = name
    config.data.test_split = imagenet_sets.split_of(name)
    if name in imagenet_sets.CORRUPTED_NAMES:
        config.data.test_transform = "resize_square"
    return config


def _require_prepared(names: Sequence[str], data_dir: str | None) -> None:
    missing = [name for name in names if not data.is_prepared(name, data_dir)]
    if missing:
        default = "$TFDS_DATA_DIR, or ~/tensorflow_datasets if that is not set"
        where = default if data_dir is None else f"data.data_dir={str(data_dir)!r}"
        listed = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" * (len(missing) > 8))
        raise FileNotFoundError(
            f"--sets: {len(missing)} of {len(names)} data sets are not prepared in {where}: "
            f"{listed}. Prepare each: pnoise prepare "
            f"--dataset={missing[0]} --manual_dir=DIRECTORY_OF_THE_DOWNLOADS --data_dir=DIRECTORY "
            "(to use a bucket, copy the result there), or leave it out"
        )


def _on(opened: Run, config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> Run:
    """The same weights with another set."""
    experiment, notes = build(config), ()
    if opened.step:
        path = RunDirectory.at(workdir).path
        experiment, notes = data_version.match_run(experiment, path)
        stored = run_config.read_config(workdir)
        notes += on_all_hosts(lambda: overlap.describe_overlap(experiment, stored, path))
    else:
        first, ours = opened.experiment.test_data.class_names, experiment.test_data.class_names
        if first is None or ours is None or not class_names.are_same(first, ours):
            raise ValueError(
                f"{config.data.name} and {opened.experiment.test_data.name} number their classes "
                "differently: evaluate each one separately, without --sets"
            )
        notes = on_all_hosts(
            lambda: overlap.describe_overlap_of_weights(experiment, config.weights)
        )
    agreement.require_same_run(experiment, task="evaluate")
    return dataclasses.replace(opened, experiment=experiment, notes=notes)


def _measured(
    name: str, run: Run, mesh: jax.sharding.Mesh, path: Path, show: Callable[[str], None]
) -> dict[str, Any]:
    """Evaluates one set, unless its report exists; returns its rows and what they describe."""
    experiment = run.experiment
    for sentence in experiment.describe_scoring():
        show(sentence)
    arrays = reports.digest_arrays(run.variables)
    earlier = reports.find(path, run, arrays)
    if parallel.on_any_host(earlier is None):  # either all hosts measure, or none
        earlier = None
    rows = measure(run, mesh, show) if earlier is None else earlier["rows"]
    if earlier is None and jax.process_index() == 0:
        write_report(run, rows, path, show, arrays=arrays)
    row = rows[0]
    already = "" if earlier is None else " (measured before)"
    counted = experiment.evaluated_data.num_classes
    show(f"{name}: top-1 {row['top1']:.2f} % clean of {row['n']}, {counted} classes{already}")
    return {
        "name": name,
        "split": experiment.config.data.test_split,
        "version": experiment.test_data.version,
        "classes": counted,
        "scoring": experiment.describe_scoring(),
        "notes": list(run.notes),
        "rows": rows,
    }


def _table_content(run: Run, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config = run.experiment.config
    protocols = {Protocol.of_row(row).name: None for each in measured for row in each["rows"]}
    content = {
        "model": config.model.name,
        "weights": run.weights,
        "step": run.step,
        "classes": config.evaluation.classes,
        "mixes_batch": any(each.noise.mixes_batch for each in run.experiment.evaluated_injections),
        "sets": list(measured),
        "corrupted": {name: means for name in protocols if (means := _corrupted(measured, name))},
        "config": json.loads(config.to_json_best_effort()),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    return {"measurement": digest.hexdigest()[:8], **content}


def _corrupted(measured: Sequence[Mapping[str, Any]], protocol: str) -> dict[str, Any]:
    """The errors on ImageNet-C in one protocol; {} if no corruption has all severities."""
    top1, versions = {}, set()
    for each in measured:
        if each["name"] in imagenet_sets.CORRUPTED_NAMES:
            versions.add(each["version"])
            for row in each["rows"]:
                if Protocol.of_row(row).name == protocol:
                    top1[imagenet_sets.corruption_of(each["name"])] = row["top1"]
    errors = corruption_error.errors_by_corruption(top1)
    if not errors:
        return {}
    official = versions == {imagenet_sets.OFFICIAL_CORRUPTED_VERSION}
    means = corruption_error.mean_errors(errors)
    return {"errors": errors, **means, "versions": sorted(versions), "official": official}


def print_table(console: Console, content: Mapping[str, Any]) -> None:
    """Prints a table of the sets, and below it the measures of ImageNet-C."""
    trained = f"step {content['step']}" if content["step"] else "weights as they are"
    title = Text(printable(f"{content['model']}, {trained}"))
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("test set")
    table.add_column("protocol")
    for heading in ("batch", "logits", "top-1 %", "top-5 %", "examples"):
        table.add_column(heading, justify="right")
    for each in content["sets"]:
        for row in each["rows"]:
            protocol = Protocol.of_row(row)
            if _in_means(each["name"], content["corrupted"].get(protocol.name)):
                continue
            numbers = (f"{row['top1']:.2f}", f"{row['top5']:.2f}", str(row["n"]))
            counts = (str(protocol.batch_size), str(each["classes"]))
            table.add_row(each["name"], protocol.name, *counts, *numbers)
    if table.row_count:
        console.print(table)
        if content["mixes_batch"]:
            console.print(EXPLANATION, style="dim")
    for protocol, corrupted in content["corrupted"].items():
        console.print(_in_words(protocol, corrupted), soft_wrap=True, highlight=False)


def _in_means(name: str, corrupted: Mapping[str, Any] | None) -> bool:
    """Whether this set is part of a mean over the severities of a corruption, printed below."""
    if not corrupted or name not in imagenet_sets.CORRUPTED_NAMES:
        return False
    corruption, _ = imagenet_sets.corruption_of(name)
    return corruption in corrupted["errors"]


def _in_words(protocol: str, corrupted: Mapping[str, Any]) -> str:
    by_corruption = ", ".join(f"{name} {error:.1f}" for name, error in corrupted["errors"].items())
    lines = [f"ImageNet-C, {protocol}: error in percent, mean over 5 severities: {by_corruption}"]
    if "mce" in corrupted:
        lines.append(
            f"ImageNet-C, {protocol}: mean error of the 15 corruptions "
            f"{corrupted['mean_error']:.2f} %; mCE, relative to AlexNet, {corrupted['mce']:.2f} %"
        )
    else:
        lines.append("ImageNet-C: no mean and no mCE, as some of the 15 corruptions are missing")
    if not corrupted["official"]:
        lines.append(
            f"note: version {', '.join(corrupted['versions'])} is not the published files: TFDS "
            "generates these images again, so published numbers differ a little"
        )
    return "\n".join(lines)


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    file = RunDirectory(path).evaluations / f"sets-{content['measurement']}.json"
    file.parent.mkdir(exist_ok=True)
    writing.replace_file(file, json.dumps(content, indent=2) + "\n")
    return file
