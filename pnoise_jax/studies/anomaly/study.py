"""Trains runs that each hold out a class, and measures how well they detect that class."""

import copy
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from pnoise_jax import data, denoising, parallel, training, writing
from pnoise_jax.runs import RunDirectory
from pnoise_jax.studies.training_runs import train_missing
from pnoise_jax.terminal import create_console, printable
from pnoise_jax.training import data_version

LARGEST_FLOOR = 2 * 10**11  # comparisons of pixels, a few seconds; `nearest` is None above this


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """How well one run detects anomalies.

    Attributes:
      held_out: the names of all held-out classes, including those without an image in the split;
        their labels if they have no names.
      run: the directory of the run.
      config: the config with which the run was measured.
      data, split, model: names of the scored data set and split, and of the model.
      step: the step of the checkpoint.
      curve: ROC curve of the reconstruction errors.
      nearest: ROC curve of the distances to the nearest training image; None if the data are too
        large.
    """

    held_out: tuple[str, ...]
    run: Path
    config: ml_collections.ConfigDict
    data: str
    split: str
    model: str
    step: int
    curve: denoising.RocCurve
    nearest: denoising.RocCurve | None


def detect(
    workdir: str | os.PathLike, config: ml_collections.ConfigDict | None = None
) -> Detection:
    """Scores the test split of a run whose training had held-out classes.

    Args:
      workdir: the work directory of the run.
      config: the config of the run, except that its evaluation and data sections can differ; None
        uses the stored config. The training images always come from the stored split.

    Raises:
      ValueError, OSError: there is no such run, nothing was held out, the weights that it started
        from may have learned the held-out classes, or its training split contains scored images.
    """
    mesh = parallel.data_mesh()
    run = training.restore(workdir, config, mesh=mesh)
    trained = _as_trained(workdir, run.experiment)
    learned = trained.without_augmentation(trained.train_data)
    scores, anomalous = denoising.score_anomalies(run, mesh=mesh, learned=learned)
    experiment = run.experiment
    assert isinstance(experiment.task, denoising.Denoising), "score_anomalies has checked it"
    return Detection(
        experiment.task.held_out_names,
        RunDirectory.at(workdir).path,
        experiment.config,
        experiment.config.data.name,
        experiment.config.data.test_split,
        experiment.config.model.name,
        run.step,
        denoising.roc_curve(scores, anomalous),
        _nearest(trained, learned, experiment.test_data, anomalous),
    )


def _as_trained(workdir: str | os.PathLike, experiment: training.Experiment) -> training.Experiment:
    """Builds the experiment with the splits that its run was trained on, preprocessed as now.

    Raises:
      ValueError, OSError: these data no longer exist, or the run started from weights that may have
        learned the held-out classes.
    """
    path = RunDirectory.at(workdir).path
    config, stored = copy.deepcopy(experiment.config), training.read_config(path)
    for field in ("name", "train_split", "test_split"):
        config.data[field] = stored.data[field]
    trained = training.build(config)
    data_version.check(path, stored, config, data_version.describe(trained))
    task = trained.task
    if isinstance(task, denoising.Denoising) and task.held_out and stored.weights is not None:
        denoising.require_unseen_by_weights(stored.weights, task.held_out_names)
    return trained


def _nearest(
    trained: training.Experiment,
    learned: data.Dataset,
    test_data: data.Dataset,
    anomalous: np.ndarray,
) -> denoising.RocCurve | None:
    """Returns the curve of distances to training images; None if the data are too large."""
    task = trained.task
    assert isinstance(task, denoising.Denoising), "score_anomalies has checked it"
    known = task.without_held_out(learned)
    pixels = int(np.prod(test_data.require_image_shape()))
    if len(known) * len(test_data) * pixels > LARGEST_FLOOR:
        return None
    distances = denoising.nearest_distances(_images(test_data), _images(known))
    return denoising.roc_curve(distances, anomalous)


def _images(dataset: data.Dataset) -> np.ndarray:
    return np.stack([dataset[i]["image"] for i in range(len(dataset))])


def train_held_out(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike, classes: Sequence[str] | None
) -> Iterator[tuple[Path, ml_collections.ConfigDict]]:
    """Trains the runs of `held_out_runs`, or resumes those that are not finished.

    Args:
      config, workdir, classes: as for `held_out_runs`.

    Yields:
      The directory of each run, and its config.

    Raises:
      ValueError, OSError: as for `held_out_runs` and `training.train`; or a directory contains a
        run of another config.
    """
    runs, console = held_out_runs(config, workdir, classes), create_console()
    for path, ours in runs:
        (held_out,) = ours.task.held_out_classes
        title = printable(f"held out: {held_out}")
        train_missing(training.build(ours), path, title=title, console=console)
        yield path, ours


def held_out_runs(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike, classes: Sequence[str] | None
) -> list[tuple[Path, ml_collections.ConfigDict]]:
    """Returns the directory and the config of a run for each held-out class.

    Args:
      config: a config of the task "denoising"; its held-out classes are replaced.
      workdir: the directory of all runs, each in a directory held_out_CLASS, or
        held_out_LABEL_CLASS if two classes would otherwise share one.
      classes: names of the classes, or labels if they have no names; None selects all classes.

    Raises:
      ValueError, OSError: the config or its data are invalid, a class does not exist or is named
        twice, or no class is named.
    """
    writing.require_local(workdir, named=f"--workdir={str(workdir)!r}")
    if config.task.name != "denoising":
        raise ValueError(
            f"task.name={config.task.name!r} reconstructs no images: hold classes out of a config "
            "with task.name='denoising'"
        )
    test_data = training.build(config).test_data
    names = test_data.class_names or tuple(map(str, range(test_data.num_classes)))
    chosen = names if classes is None else tuple(classes)
    labels = [_label_of(each, test_data) for each in chosen]
    if not chosen:
        raise ValueError("--held_out names no class: give some, or 'each' for all in turn")
    if repeated := [chosen[i] for i, label in enumerate(labels) if label in labels[:i]]:
        raise ValueError(
            f"--held_out={','.join(chosen)} names class {repeated[0]!r} twice: name each once"
        )
    directories, runs = _directory_names(names), []
    for name, label in zip(chosen, labels, strict=True):
        path = RunDirectory.at(workdir).path / directories[label]
        ours = copy.deepcopy(config)
        ours.task.held_out_classes = (label if test_data.class_names is None else name,)
        runs.append((path, ours))
    return runs


def _directory_names(names: Sequence[str]) -> list[str]:
    """The directory of the run without each class; with labels if names would not be unique."""
    short = [writing.file_name(name) for name in names]
    if len(set(map(str.casefold, short))) < len(short):
        short = [f"{label}_{name}" for label, name in enumerate(short)]
    return [f"held_out_{name}" for name in short]


def _label_of(name: str, test_data: data.Dataset) -> int:
    """Returns the label of a class, given its name, or its number if classes have no names."""
    asked: str | int = name
    if test_data.class_names is None and name.isdecimal():
        asked = int(name)
    (label,) = data.class_names.find_labels(
        [asked], test_data.class_names, number=test_data.num_classes, field="--held_out"
    )
    return label
