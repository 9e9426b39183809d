"""The models whose curves are drawn: their runs, and the strengths in their training."""

import copy
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from pnoise_jax import data, noise, training
from pnoise_jax.robustness import KINDS, RobustClassification, require_single_labels
from pnoise_jax.studies.sweep.cells import override
from pnoise_jax.studies.training_runs import require_seeds
from pnoise_jax.writing import file_name

Arms = Mapping[str, Mapping[str, Any]]  # by name, the values of dotted fields


@dataclasses.dataclass(frozen=True, eq=False)
class StudyRun:
    """One training of a study, built and checked.

    Attributes:
      arm: name of the arm.
      seed: seed of the run.
      experiment: the experiment that its config describes.
    """

    arm: str
    seed: int
    experiment: training.Experiment

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        return f"{file_name(self.arm)}-seed_{self.seed}"


def build_runs(base: ml_collections.ConfigDict, arms: Arms, seeds: Sequence[int]) -> list[StudyRun]:
    """Builds and checks all runs, seed by seed, before the first one trains.

    Args:
      base: the study's config.
      arms: by name, the fields that the arm changes.
      seeds: seeds of the runs.

    Raises:
      ValueError: there are no arms, a seed is given twice, or an arm is invalid or has different
        test data; the message names the arm.
      OSError: the data cannot be read or prepared.
    """
    require_seeds(seeds)
    if not arms:
        raise ValueError("arms() returns no arm: give at least {'plain': {}}")
    names = [file_name(arm) for arm in arms]
    if len(set(names)) < len(names):
        raise ValueError(f"arms(): two of {', '.join(arms)} would share a directory; rename one")
    for arm, fields in arms.items():
        if "seed" in fields:
            raise ValueError(
                f"{arm}: seed={fields['seed']!r}: the study sets the seeds, the same for every "
                "arm; leave it out, and use --seeds"
            )
    runs: list[StudyRun] = []
    load = functools.cache(data.load)
    for seed in seeds:
        for arm, fields in arms.items():
            with training.as_config_errors(arm):
                config = override(copy.deepcopy(base), fields)
                config.seed = seed
                experiment = training.build(config, load=load)
                require_classification(experiment)
                training.check_training(experiment)
                experiment.task.check()
                if runs:
                    _require_same_test_data(experiment, runs[0])
            runs.append(StudyRun(arm, seed, experiment))
    return runs


def require_classification(experiment: training.Experiment) -> None:
    """Raises ValueError unless the model predicts the labels of the test split."""
    if not isinstance(experiment.task, training.Classification):
        raise ValueError(
            f"task.name={experiment.config.task.name!r}: robustness curves need a model trained "
            "by 'classification' or 'robust_classification', which predicts the labels of the test "
            "split; give a run of one of these"
        )
    require_single_labels(experiment.test_data)


def _require_same_test_data(experiment: training.Experiment, first: StudyRun) -> None:
    """Raises ValueError unless both have the same test images, as arms are compared per image."""
    facts, expected = map(_test_facts, (experiment, first.experiment))
    changed = [name for name in facts if facts[name] != expected[name]]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{name} is {facts[name]!r}, but {expected[name]!r} in {first.arm}: arms are compared "
            "image by image, so give all of them the same test data"
        )
    labels = experiment.test_data.labels, first.experiment.test_data.labels
    if not np.array_equal(*labels):
        raise ValueError(
            f"data.data_dir={experiment.config.data.data_dir!r}: its test labels differ from those "
            f"of {first.arm}: arms are compared image by image, so give all of them the same test "
            "data"
        )


def _test_facts(experiment: training.Experiment) -> dict[str, Any]:
    section, test_data = experiment.config.data, experiment.test_data
    return {
        "data.name": section.name,
        "data.test_split": section.test_split,
        "data.test_transform": section.test_transform,
        "evaluation.classes": experiment.config.evaluation.classes,
        "the version of the test data": test_data.version,
        "the number of test images": len(test_data),
        "the shape of test images": test_data.require_image_shape(),
    }


def trained_strengths(experiment: training.Experiment) -> dict[str, float]:
    """Returns the largest strength in training, by kind of perturbation.

    A schedule counts with its largest factor. The variances of several Gaussian noises add up; of
    several noises of another kind, only the strongest counts.
    """
    strengths: dict[str, float] = {}
    for injection in experiment.strongest_injections:
        applied = injection.noise
        if not injection.train or injection.point != "image":
            continue
        if isinstance(applied, noise.Gaussian):
            std = abs(applied.std * applied.strength)
            strengths["gaussian"] = math.hypot(strengths.get("gaussian", 0.0), std)
        elif isinstance(applied, noise.SaltAndPepper):
            before = strengths.get("salt_and_pepper", 0.0)
            strengths["salt_and_pepper"] = max(before, applied.probability)
    task = experiment.task
    if isinstance(task, RobustClassification) and task.adversary is not None:
        strengths[task.attack] = task.strongest_epsilon
    return {kind: strengths[kind] for kind in KINDS if strengths.get(kind)}
