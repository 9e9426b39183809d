"""Robustness curves, for models that a study trains or for an existing run."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from rich.console import Console

from pnoise_jax import parallel, runs, training, writing
from pnoise_jax.runs import BASE_CONFIG, RunDirectory, write_config
from pnoise_jax.studies.robustness import masking, report
from pnoise_jax.studies.robustness.arms import (
    Arms,
    StudyRun,
    build_runs,
    require_classification,
    trained_strengths,
)
from pnoise_jax.studies.robustness.measuring import (
    ATTACKS,
    CurveSettings,
    Measured,
    measure,
    measure_kept,
)
from pnoise_jax.studies.robustness.summary import summarise
from pnoise_jax.studies.training_runs import train_missing
from pnoise_jax.terminal import create_console, printable
from pnoise_jax.training import differing, run_config

SEEDS = (0, 1, 2, 3, 4)
VERSION = 2  # of robustness.json


def run_curves(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    arms: Arms,
    *,
    seeds: Sequence[int] = SEEDS,
    settings: CurveSettings | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains the models that are missing in ``workdir``, and measures the curves of all models.

    The results are robustness.json, .csv, .svg and .png; runs/ contains the work directory of every
    run. If the call was stopped, the same call resumes.

    Args:
      config: the config of all runs.
      workdir: the work directory of the study; created if necessary.
      arms: by name, the fields that the arm changes; the other arms are compared with the first.
      seeds: seeds of the runs. With fewer than three, nothing is claimed about other seeds.
      settings: the perturbations of the test images.
      command: the command line, for the report.

    Returns:
      The content of robustness.json.

    Raises:
      ValueError, OSError: the config, an arm, the data or the work directory is invalid. This is
        raised before any training, and the message names the cause.
      NonFiniteLossError, StoppedError: as for `training.train`; finished runs are kept.
    """
    _require_one_host()
    settings = settings or CurveSettings()
    study_runs = build_runs(config, arms, seeds)
    path = runs.make_writable(workdir)
    _claim(path, config)
    console = create_console()
    for run in study_runs:
        title = f"{run.arm}, seed {run.seed}"
        train_missing(run.experiment, path / "runs" / run.name, title=title, console=console)
    measured = [_measure(run, path, settings, console) for run in study_runs]
    experiments = {run.arm: run.experiment for run in study_runs}
    return _finish(path, config, measured, experiments, settings, command, console)


def run_curves_of(
    workdir: str | os.PathLike,
    config: ml_collections.ConfigDict | None,
    out: str | os.PathLike,
    *,
    settings: CurveSettings | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Measures the curves of an existing run, without changing its directory.

    Args:
      workdir: the work directory of the run.
      config: the config of the run, except that its evaluation and data sections can differ; None
        uses the stored config.
      out: the directory of the report; created if necessary.
      settings, command: as in `run_curves`.

    Returns:
      The content of robustness.json.

    Raises:
      ValueError, OSError: as for `training.restore`; or the run's task is not a classification.
      FileExistsError: ``out`` contains another report.
    """
    _require_one_host()
    settings = settings or CurveSettings()
    writing.require_local(out, named=f"--out={str(out)!r}")
    path = Path(out).expanduser().absolute()
    with writing.removing_empty(path):
        writing.make_directory(path, named=f"--out={str(out)!r}")
        writing.require_places(path, named=f"--out={str(out)!r}", files=report.FILES)
        experiment = training.build(config or training.read_config(workdir))
        require_classification(experiment)
        report.require_own(path, experiment.config, settings, named=f"--out={str(out)!r}")
        run = training.restore(workdir, config, mesh=parallel.data_mesh())
        arm, console = Path(workdir).expanduser().absolute().name, create_console()
        measured = [measure(run, settings, arm=arm, report=console.print)]
        arms, config = {arm: run.experiment}, run.experiment.config
        return _finish(path, config, measured, arms, settings, command, console)


def _require_one_host() -> None:
    if jax.process_count() > 1:
        raise ValueError("a study runs on one host, on all of its devices; start it on one alone")


def _measure(run: StudyRun, path: Path, settings: CurveSettings, console: Console) -> Measured:
    kept = path / "measured" / f"{run.name}.npz"
    place = path / "runs" / run.name
    return measure_kept(run, place, kept, settings, report=console.print)


def _finish(
    path: Path,
    config: ml_collections.ConfigDict,
    measured: Sequence[Measured],
    experiments: Mapping[str, training.Experiment],
    settings: CurveSettings,
    command: str | None,
    console: Console,
) -> dict[str, Any]:
    """Prints and writes the results."""
    trained = {arm: trained_strengths(experiment) for arm, experiment in experiments.items()}
    points = summarise(measured, settings, trained)
    signs = masking.find_signs(measured, settings)
    content = {
        "version": VERSION,
        "title": f"{config.model.name} on {config.data.name} ({config.data.test_split})",
        "examples": len(measured[0].whole_range),
        "seeds": sorted({run.seed for run in measured}),
        **report.asked(config, settings),
        "trained": trained,
        "points": [dataclasses.asdict(point) | {"beyond": point.beyond} for point in points],
        "after_the_whole_range": _share(measured, "whole_range"),
        "of_random_images": _share(measured, "random_images"),
        "without_gradient": _share(measured, "zero_gradients"),
        "accuracy_by_loss": [
            {"arm": run.arm, "seed": run.seed, "kind": kind, "loss": loss, "percent": percent}
            for run in measured
            for kind in ATTACKS
            for loss in run.attacks[kind]
            for percent in [run.accuracy(kind, loss).tolist()]
        ],
        "signs_of_masking": signs,
        "sentences": report.sentences(points, measured, signs, settings, experiments),
        "command": command and printable(command),
        "device": jax.devices()[0].device_kind,
    }
    report.print_tables(console, points)
    for sentence in content["sentences"]:
        console.print(printable(sentence), soft_wrap=True, highlight=False)
    report.write(path, content, points, console)
    return content


def _share(measured: Sequence[Measured], name: str) -> list[dict[str, Any]]:
    """Returns for each model the percentage of images for which an attribute is True."""
    return [
        {"arm": run.arm, "seed": run.seed, "percent": 100 * float(getattr(run, name).mean())}
        for run in measured
    ]


def _claim(path: Path, config: ml_collections.ConfigDict) -> None:
    """Claims the directory for this study, or checks that it already belongs to it.

    Raises:
      ValueError: it contains a run, or a study with another config; the message lists the fields
        that differ.
    """
    named = f"--workdir={str(path)!r}"
    files = (*report.FILES, BASE_CONFIG)
    writing.require_places(path, named=named, files=files, directories=("runs", "measured"))
    if RunDirectory(path).has_run():
        raise ValueError(
            f"{named} contains a run of pnoise train; give the study its own directory, or leave "
            "--config out to measure the run"
        )
    if (path / BASE_CONFIG).exists():
        changed = differing(run_config.read_config(path, name=BASE_CONFIG), config)
        changed.pop("seed", None)
        if changed:
            listed = "; ".join(
                f"{k}: {old!r} there, {new!r} now" for k, (old, new) in changed.items()
            )
            raise ValueError(
                f"{named} contains a study with another config ({listed}): choose another "
                "directory, or set these fields back"
            )
    else:
        write_config(path / BASE_CONFIG, config)
    for directory in ("runs", "measured"):
        (path / directory).mkdir(exist_ok=True)
