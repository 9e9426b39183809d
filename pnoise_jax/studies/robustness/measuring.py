"""Measures a model's predictions on the test set at every strength, and stores them."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax import parallel, training
from pnoise_jax.robustness import (
    BLIND,
    KINDS,
    LOSSES,
    PGD_STEPS,
    Perturbation,
    find_zero_gradients,
    predict_perturbed,
)
from pnoise_jax.runs import RunDirectory
from pnoise_jax.studies.kept_arrays import describe_images, read_arrays, write_arrays
from pnoise_jax.studies.robustness.arms import StudyRun, require_classification

STRENGTHS = {
    "gaussian": (0.05, 0.1, 0.2, 0.3),
    "salt_and_pepper": (0.02, 0.05, 0.1, 0.2),
    "fgsm": (2 / 255, 4 / 255, 8 / 255, 16 / 255),
    "pgd": (2 / 255, 4 / 255, 8 / 255, 16 / 255),
}
ATTACKS = ("fgsm", "pgd")
_SHARES = ("zero_gradients", "whole_range", "random_images")  # of `Measured`
_WHOLE_RANGE = 1.0  # with this epsilon, any image can become any other


@dataclasses.dataclass(frozen=True)
class CurveSettings:
    """The perturbations of the test images.

    Attributes:
      strengths: by kind, in ascending order; a missing kind has the strengths of `STRENGTHS`. All
        begin with 0, the unchanged images, which is added if missing.
      pgd_steps: number of PGD steps.
      seed: seed of the random numbers.
    """

    strengths: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    pgd_steps: int = PGD_STEPS
    seed: int = 0

    def __post_init__(self):
        for kind in self.strengths:
            if kind not in KINDS:
                raise ValueError(f"strengths: {kind!r} is unknown: give some of {', '.join(KINDS)}")
        try:
            perturbations = {kind: self.perturbation(kind) for kind in KINDS}
        except ValueError as error:
            raise ValueError(f"pgd_{error}") from error
        checked = {}
        for kind, perturbation in perturbations.items():
            listed = self.strengths.get(kind, STRENGTHS[kind])
            numbers = perturbation.require_strengths(listed, field=f"strengths.{kind}")
            checked[kind] = (0.0, *(n for n in numbers if n))
            if len(checked[kind]) < 2:
                raise ValueError(f"strengths.{kind}=(0,): give one above 0, such as 0.1")
        object.__setattr__(self, "strengths", checked)

    def perturbation(self, kind: str) -> Perturbation:
        """Returns the perturbation of a kind."""
        return Perturbation(kind, self.pgd_steps if kind == "pgd" else None)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Which images one model predicts correctly.

    Attributes:
      arm: name of the arm.
      seed: seed of its training.
      noise: by kind of noise, (strengths, n) bool, True if right.
      attacks: by attack and loss, (strengths, n) bool, True if right; "blind" changes each pixel by
        epsilon in a random direction.
      zero_gradients: (n,) bool, the images that gradient attacks cannot move.
      whole_range: (n,) bool, True if right after PGD that starts at the image and can change every
        pixel without limit.
      random_images: (n,) bool, True if right after the image is replaced by random pixels.
    """

    arm: str
    seed: int
    noise: Mapping[str, np.ndarray]
    attacks: Mapping[str, Mapping[str, np.ndarray]]
    zero_gradients: np.ndarray
    whole_range: np.ndarray
    random_images: np.ndarray

    def correct(self, kind: str) -> np.ndarray:
        """Returns which are right, (strengths, n) bool; for an attack, right for all its losses."""
        if kind not in self.attacks:
            return self.noise[kind]
        return np.all([self.attacks[kind][loss] for loss in LOSSES], axis=0)

    def accuracy(self, kind: str, loss: str | None = None) -> np.ndarray:
        """Returns the accuracy in percent, by strength; for an attack also with one loss alone."""
        correct = self.correct(kind) if loss is None else self.attacks[kind][loss]
        return 100 * correct.mean(axis=1)


def measure(
    run: training.Run, settings: CurveSettings, *, arm: str, report: Callable[[str], None]
) -> Measured:
    """Evaluates a model at every strength.

    Args:
      run: the model to evaluate.
      settings: the perturbations of its test images.
      arm: name of the arm.
      report: called with a sentence about the progress.

    Raises:
      ValueError: the run's task is not a classification, or the test split has no labels.
    """
    experiment = run.experiment
    require_classification(experiment)
    task = experiment.task
    common = (task.model, run.variables, experiment.evaluated_data)
    options: dict[str, Any] = {"mesh": parallel.data_mesh(), "mean": task.mean, "std": task.std}

    def answers(
        perturbation: Perturbation, strength: float, losses: tuple[str, ...] = LOSSES
    ) -> np.ndarray:
        predictions = predict_perturbed(
            *common,
            perturbation,
            strength,
            seed=settings.seed,
            losses=losses,
            report=report,
            **options,
        )
        return predictions.rank < 1

    clean = answers(Perturbation("gaussian"), 0.0)

    def curve(kind: str, perturbation: Perturbation, loss: str) -> np.ndarray:
        rest = settings.strengths[kind][1:]  # the first is 0
        return np.stack([clean, *(answers(perturbation, s, (loss,)) for s in rest)])

    random_step = Perturbation("fgsm")
    return Measured(
        arm,
        experiment.config.seed,
        {k: curve(k, settings.perturbation(k), LOSSES[0]) for k in KINDS if k not in ATTACKS},
        {
            kind: {loss: curve(kind, settings.perturbation(kind), loss) for loss in LOSSES}
            | {BLIND: curve(kind, random_step, BLIND)}
            for kind in ATTACKS
        },
        find_zero_gradients(*common, **options),
        answers(Perturbation("pgd", settings.pgd_steps, random_start=False), _WHOLE_RANGE),
        answers(random_step, _WHOLE_RANGE, (BLIND,)),
    )


def measure_kept(
    run: StudyRun,
    path: Path,
    kept: Path,
    settings: CurveSettings,
    *,
    report: Callable[[str], None],
) -> Measured:
    """Measures a finished run of a study, or reads its stored predictions.

    Args:
      run: the run.
      path: its directory.
      kept: the file of its predictions; written if it is missing or is of another measurement.
      settings, report: as in `measure`.

    Raises:
      OSError: the run cannot be restored, or the file cannot be written.
    """
    identity = _identity(run, path, settings)
    arrays = read_arrays(kept, identity)
    if arrays is None:
        restored = training.restore(
            path, run.experiment.config, mesh=parallel.data_mesh(), report=report
        )
        measured = measure(restored, settings, arm=run.arm, report=report)
        arrays = {name: getattr(measured, name) for name in _SHARES}
        arrays |= measured.noise
        for kind in ATTACKS:
            arrays |= {f"{kind} {loss}": right for loss, right in measured.attacks[kind].items()}
        write_arrays(kept, identity, arrays)
    noise = {kind: arrays[kind] for kind in KINDS if kind not in ATTACKS}
    losses = (*LOSSES, BLIND)
    attacks = {kind: {loss: arrays[f"{kind} {loss}"] for loss in losses} for kind in ATTACKS}
    return Measured(run.arm, run.seed, noise, attacks, *(arrays[name] for name in _SHARES))


def _identity(run: StudyRun, path: Path, settings: CurveSettings) -> str:
    """Describes what the predictions depend on, in addition to the run's config."""
    return json.dumps(
        {
            **describe_images(run.experiment),
            "step": RunDirectory(path).steps()[-1],
            "settings": dataclasses.asdict(settings),
            "losses": [*LOSSES, BLIND],
            "started": RunDirectory(path).config.stat().st_mtime_ns,
        }
    )
