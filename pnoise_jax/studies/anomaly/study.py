"""Trains runs that each hold out a class, and measures how well they tell it from the others."""

import copy
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from pnoise_jax import data, denoising, parallel, training, writing
from pnoise_jax.runs import RunDirectory

LARGEST_FLOOR = 10**9  # pixels compared with pixels, beyond which there is no nearest neighbour


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """One run and its anomalies.

    Attributes:
      held_out: the names of the classes that training did not show; their labels if they have none.
      run: its directory.
      data, split, model: what was scored, and by which model.
      step: of the checkpoint.
      curve: of the reconstruction errors.
      nearest: of the distances to the nearest training image; None for large data.
    """

    held_out: tuple[str, ...]
    run: Path
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

    Raises:
      ValueError, OSError: there is no such run, or it has nothing held out; named.
    """
    mesh = parallel.data_mesh()
    run = training.restore(workdir, config, mesh=mesh)
    scores, anomalous = denoising.score_anomalies(run, mesh=mesh)
    experiment = run.experiment
    names = experiment.test_data.class_names
    labels = np.unique(experiment.test_data.labels[anomalous])
    return Detection(
        tuple(str(n) if names is None else names[n] for n in labels),
        RunDirectory.at(workdir).path,
        experiment.config.data.name,
        experiment.config.data.test_split,
        experiment.config.model.name,
        run.step,
        denoising.roc_curve(scores, anomalous),
        _nearest(experiment, anomalous),
    )


def _nearest(experiment: training.Experiment, anomalous: np.ndarray) -> denoising.RocCurve | None:
    """The curve of a score without a model, where the data are small enough."""
    task, test_data = experiment.task, experiment.test_data
    assert isinstance(task, denoising.Denoising), "score_anomalies has checked it"
    known = task.without_held_out(experiment.without_augmentation(experiment.train_data))
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
    """Trains a run for each class held out, or goes on with those that are not finished.

    Args:
      config: of the task "denoising"; what it holds out is replaced.
      workdir: gets a directory held_out_CLASS for each.
      classes: by name, or by label where they have no names; None for each class of the data.

    Yields:
      The directory of each run, and its config.

    Raises:
      ValueError, OSError: as `training.train`; before any training where a class does not exist.
    """
    if config.task.name != "denoising":
        raise ValueError(
            f"task.name={config.task.name!r} reconstructs nothing: hold classes out of a config "
            "with task.name='denoising'"
        )
    test_data = training.build(config).test_data
    names = test_data.class_names or tuple(map(str, range(test_data.num_classes)))
    chosen = names if classes is None else tuple(classes)
    held_out = [_with_held_out(config, each, test_data) for each in chosen]
    for name, ours in zip(chosen, held_out, strict=True):
        path = RunDirectory.at(workdir).path / f"held_out_{writing.file_name(name)}"
        total = training.build(ours).total_steps
        if max(RunDirectory(path).steps(), default=0) < total:
            training.train(ours, path)
        yield path, ours


def _with_held_out(
    config: ml_collections.ConfigDict, name: str, test_data: data.Dataset
) -> ml_collections.ConfigDict:
    """The config with one class held out; by its label where the data set has no names."""
    label: str | int = name
    if test_data.class_names is None:
        label = int(name) if name.isdecimal() else name
    data.class_names.find_labels(
        [label], test_data.class_names, number=test_data.num_classes, field="--held_out"
    )
    config = copy.deepcopy(config)
    config.task.held_out_classes = (label,)
    return config
