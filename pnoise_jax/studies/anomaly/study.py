"""Trains runs that each hold out a class, and measures how well they detect it."""

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

LARGEST_FLOOR = 2 * 10**11  # comparisons of pixels, some seconds; above it there is no neighbour


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """One run and its anomalies.

    Attributes:
      held_out: the names of all held-out classes, including those without an image in the split;
        their labels if they have no names.
      run: its directory.
      config: what was asked of it.
      data, split, model: the scored data, and the model.
      step: of the checkpoint.
      curve: of the reconstruction errors.
      nearest: of the distances to the nearest training image; None for large data.
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
      workdir: of the run.
      config: the run's, whose evaluation and data sections may differ; None takes the run's own.
        The training images are always those of the run's stored split.

    Raises:
      ValueError, OSError: there is no such run, nothing was held out, or its weights or its
        training split contain what is scored.
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
    """The run with the splits it was trained on, with images prepared as the experiment does.

    Raises:
      ValueError, OSError: these data no longer exist, or the run started from weights that may have
        learned the classes it holds out.
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
    """The curve of a score without a model, if the data are small enough."""
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
      config, workdir, classes: as `held_out_runs` takes them.

    Yields:
      The directory of each run, and its config.

    Raises:
      ValueError, OSError: as `held_out_runs` and `training.train`; or a directory holds the run of
        another config.
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
    """The directory and the config of a run for each held-out class.

    Args:
      config: of the task "denoising"; its held-out classes are replaced.
      workdir: has a directory held_out_CLASS for each.
      classes: by name, or by label if they have no names; None for all classes of the data.

    Raises:
      ValueError, OSError: the config or its data are bad; a class does not exist or is named twice,
        or no class is named.
    """
    writing.require_local(workdir, named=f"--workdir={str(workdir)!r}")
    if config.task.name != "denoising":
        raise ValueError(
            f"task.name={config.task.name!r} reconstructs nothing: hold classes out of a config "
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
    runs = []
    for name, label in zip(chosen, labels, strict=True):
        path = RunDirectory.at(workdir).path / f"held_out_{writing.file_name(name)}"
        ours = copy.deepcopy(config)
        ours.task.held_out_classes = (label if test_data.class_names is None else name,)
        runs.append((path, ours))
    return runs


def _label_of(name: str, test_data: data.Dataset) -> int:
    """The label of a named class; by its number if the data set has no names."""
    asked: str | int = name
    if test_data.class_names is None and name.isdecimal():
        asked = int(name)
    (label,) = data.class_names.find_labels(
        [asked], test_data.class_names, number=test_data.num_classes, field="--held_out"
    )
    return label
