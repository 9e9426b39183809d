"""The models whose curves are drawn: what each is trained with, and how strongly."""

import copy
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from pnoise_jax import data, noise, training
from pnoise_jax.robustness import KINDS, RobustClassification
from pnoise_jax.studies.sweep.cells import override
from pnoise_jax.writing import file_name

Arms = Mapping[str, Mapping[str, Any]]  # by name, values of dotted fields


@dataclasses.dataclass(frozen=True, eq=False)
class StudyRun:
    """One training of a study, built and checked.

    Attributes:
      arm: what it is trained with, by name.
      seed: of the run.
      experiment: what its config describes.
    """

    arm: str
    seed: int
    experiment: training.Experiment

    @property
    def name(self) -> str:
        """Of its directory."""
        return f"{file_name(self.arm)}-seed_{self.seed}"


def build_runs(base: ml_collections.ConfigDict, arms: Arms, seeds: Sequence[int]) -> list[StudyRun]:
    """All runs, seed by seed, each built and checked, so that a bad one is found before the first.

    Args:
      base: the study's config.
      arms: the fields that each changes.
      seeds: of the runs.

    Raises:
      ValueError: there are no arms, or one is bad: it is named.
      OSError: the data cannot be read or prepared.
    """
    if not arms:
        raise ValueError("arms() returns none: give at least {'plain': {}}")
    names = [file_name(arm) for arm in arms]
    if len(set(names)) < len(names):
        raise ValueError(f"arms(): two of {', '.join(arms)} would share a directory; rename one")
    runs, load = [], functools.cache(data.load)
    for seed in seeds:
        for arm, fields in arms.items():
            try:
                config = override(copy.deepcopy(base), fields)
                config.seed = seed
                experiment = training.build(config, load=load)
                require_classification(experiment)
                training.check_training(experiment)
                experiment.task.check()
            except (ValueError, OSError) as error:
                kind = ValueError if isinstance(error, ValueError) else OSError
                raise kind(f"{arm}: {error}") from error
            runs.append(StudyRun(arm, seed, experiment))
    return runs


def require_classification(experiment: training.Experiment) -> None:
    """Raises ValueError unless the labels of the test split are what the model predicts."""
    if not isinstance(experiment.task, training.Classification):
        raise ValueError(
            f"task.name={experiment.config.task.name!r}: robustness curves are of models trained "
            "by 'classification' or 'robust_classification', whose labels are those of the test "
            "split; give a run of one of these"
        )


def trained_strengths(experiment: training.Experiment) -> dict[str, float]:
    """By kind of perturbation how strongly the images were perturbed in training.

    Of a schedule, the strength that it multiplies.
    """
    found: dict[str, float] = {}
    for injection in experiment.injections:
        applied = injection.noise
        if not injection.train or injection.point != "image":
            continue
        if isinstance(applied, noise.Gaussian):
            found["gaussian"] = applied.std * applied.strength
        elif isinstance(applied, noise.SaltAndPepper):
            found["salt_and_pepper"] = applied.probability
    task = experiment.task
    if isinstance(task, RobustClassification) and task.adversary is not None:
        found[task.attack] = task.adversary.epsilon
    return {kind: found[kind] for kind in KINDS if kind in found}
