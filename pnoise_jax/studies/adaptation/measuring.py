"""Measures the predictions of a study's runs, and stores them so that runs can be compared."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax import data, evaluation, parallel, training
from pnoise_jax.evaluation import Hits, Protocol
from pnoise_jax.runs import RunDirectory
from pnoise_jax.studies.adaptation.methods import Method, StudyRun
from pnoise_jax.studies.kept_arrays import describe_images, read_arrays, write_arrays

PROTOCOLS = ("clean", "noisy_shuffled", "noisy_listed")  # the last in the target's stored order
# Fields that change the accuracy without noise of a finished run.
_OF_LOOKS = ("data.test_transform", "evaluation.classes", "evaluation.views")
_ORDERS = {"clean": "shuffled", "noisy_shuffled": "shuffled", "noisy_listed": "stored"}


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """One run's predictions on the target.

    Attributes:
      method: the row of the table.
      seed: seed of the run.
      labels: (n,), labels of the target.
      predicted: by protocol, (n,), the predicted classes.
      correct: by protocol, (n,) bool.
      batches: by protocol with noise that mixes a batch, (n,), the batch of each example.
      looks: the evaluations without noise during training, as (step, accuracy, mean per class). The
        last step is always included; the others are left out if they saw the images otherwise.
    """

    method: Method
    seed: int
    labels: np.ndarray
    predicted: Mapping[str, np.ndarray]
    correct: Mapping[str, np.ndarray]
    batches: Mapping[str, np.ndarray]
    looks: tuple[tuple[int, float, float], ...]

    def accuracy(self, protocol: str) -> float:
        """Returns the accuracy, in percent."""
        return 100 * float(self.correct[protocol].mean())

    def per_class_mean(self, protocol: str) -> float:
        """Returns the mean of the per-class accuracies, in percent."""
        return evaluation.balanced_accuracy(self.labels, self.correct[protocol])

    def purity(self, protocol: str) -> float | None:
        """Returns the mean share of batch mates of the same class; None if nothing is mixed."""
        batches = self.batches.get(protocol)
        return None if batches is None else evaluation.purity(self.labels, batches)


def rows_of(measured: Measured) -> list[dict[str, Any]]:
    """Returns the rows of one run in adaptation.json."""
    return [
        {
            "method": measured.method.name,
            "noise": measured.method.noise,
            "seed": measured.seed,
            "protocol": protocol,
            "accuracy": measured.accuracy(protocol),
            "per_class_mean": measured.per_class_mean(protocol),
            "n": len(measured.labels),
            "purity": measured.purity(protocol),
        }
        for protocol in PROTOCOLS
        if protocol in measured.correct
    ]


def hits(runs: list[Measured], protocol: str) -> Hits:
    """Returns which examples the runs of a row predict correctly, by seed."""
    correct = np.stack([run.correct[protocol] for run in runs])
    return Hits(correct, runs[0].batches.get(protocol))


def measure(run: StudyRun, path: Path, kept: Path, *, report: Callable[[str], None]) -> Measured:
    """Evaluates a finished run by all protocols, or reads its stored predictions.

    Args:
      run: the run.
      path: its directory.
      kept: the file of its predictions; written if it is missing or is of another evaluation.
      report: called with a sentence about the progress.

    Raises:
      OSError: the run cannot be restored, or the file cannot be written.
    """
    identity = _identity(run, path)
    arrays = read_arrays(kept, identity)
    if arrays is None:
        restored = training.restore(
            path, run.experiment.config, mesh=parallel.data_mesh(), report=report
        )
        arrays = _predict(restored, report)
        write_arrays(kept, identity, arrays)
    labels, looks = arrays["labels"], read_looks(path) if _looked_alike(run, path) else []
    protocols = [name for name in PROTOCOLS if f"{name}_predicted" in arrays]
    correct = {name: arrays[f"{name}_correct"] for name in protocols}
    clean = correct["clean"]
    last = (
        RunDirectory(path).steps()[-1],
        100 * float(clean.mean()),
        evaluation.balanced_accuracy(labels, clean),
    )
    return Measured(
        method=run.method,
        seed=run.seed,
        labels=labels,
        predicted={name: arrays[f"{name}_predicted"] for name in protocols},
        correct=correct,
        batches={name: _batches(run, name, labels) for name in protocols if _mixes(run, name)},
        looks=(*(look for look in looks if look[0] < last[0]), last),
    )


def _predict(run: training.Run, report: Callable[[str], None]) -> dict[str, np.ndarray]:
    experiment = run.experiment
    task, target, section = experiment.task, experiment.evaluated_data, experiment.config.evaluation
    arrays = {"labels": np.asarray(target.labels)}
    for name in PROTOCOLS if experiment.injections else PROTOCOLS[:1]:
        predictions = evaluation.predict(
            task.model,
            run.variables,
            target,
            _protocol(name, section.batch_size),
            mesh=parallel.data_mesh(),
            mean=task.mean,
            std=task.std,
            seed=section.seed,
            views=section.views,
            report=report,
        )
        arrays[f"{name}_predicted"] = predictions.predicted
        arrays[f"{name}_correct"] = predictions.rank < 1
    return arrays


def _protocol(name: str, batch_size: int) -> Protocol:
    return Protocol(noise=name != "clean", order=_ORDERS[name], batch_size=batch_size)


def _mixes(run: StudyRun, name: str) -> bool:
    injections = run.experiment.evaluated_injections
    return name != "clean" and any(injection.noise.mixes_batch for injection in injections)


def _batches(run: StudyRun, name: str, labels: np.ndarray) -> np.ndarray:
    section = run.experiment.config.evaluation
    order = data.evaluation_order(labels, _ORDERS[name], seed=section.seed)
    return evaluation.in_batches(order, section.batch_size)


def _looked_alike(run: StudyRun, path: Path) -> bool:
    """Returns whether the evaluations during training saw the images as they are measured now."""
    now, then = (
        dict(training.flatten(c)) for c in (run.experiment.config, training.read_config(path))
    )
    return all(now[field] == then[field] for field in _OF_LOOKS)


def read_looks(path: Path) -> list[tuple[int, float, float]]:
    """Reads the evaluations during a run's training, in order of their steps."""
    looks = {}
    for line in read_metrics(path):
        if "clean/top1" in line and "clean/per_class_mean" in line:
            looks[line["step"]] = (line["clean/top1"], line["clean/per_class_mean"])
        elif "clean/top1" in line:  # classification has no mean per class
            looks[line["step"]] = (line["clean/top1"], float("nan"))
    return [(step, *look) for step, look in sorted(looks.items())]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a run's metrics; there are none without the file."""
    file = RunDirectory(path).metrics
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]


def _identity(run: StudyRun, path: Path) -> str:
    """Describes what the predictions depend on, in addition to the run's config."""
    section = run.experiment.config.evaluation
    return json.dumps(
        {
            "step": RunDirectory(path).steps()[-1],
            "evaluation": {name: section[name] for name in ("batch_size", "seed", "views")},
            **describe_images(run.experiment),
            "started": path.joinpath("config.json").stat().st_mtime_ns,
        }
    )
