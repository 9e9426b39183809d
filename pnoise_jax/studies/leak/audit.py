"""The leak audit: does an accuracy come from the examples, or from their order?"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pnoise_jax.evaluation import Metric
from pnoise_jax.studies.leak.audited.audited_function import AuditedFunction
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.audited.examples import Examples, read_examples
from pnoise_jax.studies.leak.audited.frameworks import as_batch_function
from pnoise_jax.studies.leak.audited.labels import (
    as_classes,
    as_label_sets,
    as_names,
    by_columns,
    columns_of,
    in_columns,
    own_names,
)
from pnoise_jax.studies.leak.measure import measure
from pnoise_jax.studies.leak.measurements import Measurements
from pnoise_jax.studies.leak.settings import MIN_BATCHES, AuditSettings
from pnoise_jax.studies.leak.verdict.kinds import Verdict
from pnoise_jax.studies.leak.verdict.summary import Summary
from pnoise_jax.studies.reporting.report import require_own, write_audit
from pnoise_jax.terminal import printable
from pnoise_jax.writing import replace_file


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
      content: the content of `audit.json`.
      measured: the predictions, scores and checks that the verdict follows from.
      verdict: the answer: its kinds, its text and the evidence for them.
    """

    content: dict[str, Any]
    measured: Measurements
    verdict: Verdict

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per protocol: top-1 in percent, its interval, and what the meter would print."""
        return self.content["rows"]

    def write(self, directory: str | os.PathLike) -> list[Path]:
        """Writes audit.json, .csv and .html, the figures, and predictions.npz.

        For each protocol and seed, predictions.npz contains each example's predicted class and the
        number of classes that the model preferred to the true one. For each noisy protocol, it also
        contains the number of each example's batch. If the directory already contains a report of
        this audit, it is replaced.

        Raises:
          FileExistsError: the directory contains another audit, or other files with these names.
          OSError: the directory cannot be written.
        """
        directory = Path(directory)
        require_own(directory, self.content["measurement"], named=repr(str(directory)))
        directory.mkdir(parents=True, exist_ok=True)
        paths = write_audit(directory, self.content)
        content = io.BytesIO()
        arrays: dict[str, Any] = {**_arrays(self.measured)}
        np.savez_compressed(content, **arrays)
        replace_file(directory / "predictions.npz", content.getvalue())
        return [*paths, directory / "predictions.npz"]


def audit(
    apply: Any,
    examples: Any,
    *,
    clean: Any = None,
    settings: AuditSettings | None = None,
    metric: Metric | None = None,
    class_names: Sequence[str] | None = None,
    label_sets: Any = None,
    model: str = "the model",
    dataset: str = "the data",
) -> Audit:
    """Audits any function of a batch, in any framework.

    Args:
      apply: a function from inputs (b, ...) to logits (b, classes), as evaluated for the claim:
        with whatever noise or batch statistics it uses at inference. It may also be a PyTorch or
        Keras model, which is called in its current mode, or a fitted scikit-learn estimator. The
        last batch of an order may be smaller. Each order calls it on all examples; see
        `AuditSettings.orders`.
      examples: inputs (n, ...) and labels (n,), in any framework, or a loader of such batches,
        which is read into memory. Labels are class numbers, or names that are in class_names.
      clean: the same function without noise, or with its batch statistics frozen. If None,
        ``apply`` is called on one example at a time, as a deployed classifier is: n calls.
      settings: batch sizes, numbers of orders, confidence and so on. By default the batch size is
        that of the loader's batches, if they have one size and that makes at least five.
      metric: a metric to score in addition to accuracy: a function of a list of (labels, predicted)
        pairs, one for each batch; see `evaluation.METRICS`. The audit reports whether it depends on
        the batching.
      class_names: the name of each column of the logits. If a loader's data set names its classes,
        labels are matched with the columns by name.
      label_sets: all correct labels of each example, if there can be several, as in ReaL: a list of
        class numbers (columns of the logits) for each example, or an array padded with -1. Orders
        are still sorted by the labels. Batches that are dicts can contain them as "label_set".
      model, dataset: their names, for the report.

    Returns:
      The audit; ``audit(…).write(directory)`` writes the report.

    Raises:
      TypeError: a model or examples of an unknown kind.
      ValueError: labels that do not fit, a batch size that is not possible, a function that fails
        on a batch, or a clean function whose outputs depend on the batch.
    """
    collected = read_examples(examples)
    if collected.labels is None:
        raise ValueError("examples: there are no labels; give (inputs, labels), or such batches")
    class_names, raw_labels = as_names(class_names), np.asarray(collected.labels)
    columns, names = columns_of(apply), own_names(examples)
    if columns is not None:
        raw_labels, class_names = by_columns(raw_labels, columns, class_names)
        names = None  # the estimator's labels are already matched
    labels, matching_note = _classes(raw_labels, names, class_names)
    sets = _label_sets(label_sets, collected, is_moved=not np.array_equal(labels, collected.labels))
    if settings is not None and not isinstance(settings, AuditSettings):
        raise TypeError(f"settings={settings!r}: give studies.AuditSettings(…)")
    if metric is not None and not callable(metric):
        raise TypeError(f"metric={metric!r}: give a function, such as METRICS['macro_f1']")
    settings = _settings_for(settings, collected).for_labels(labels, dataset)
    settings.over_seeds(1)
    subject = AuditedFunction(
        as_batch_function(apply, collected.wrap),
        None if clean is None else as_batch_function(clean, collected.wrap),
        collected.inputs,
        labels,
        seed=0,
        batch_size=max(settings.sizes),
        classes=None if class_names is None else len(class_names),
        label_sets=sets,
    )
    measured = measure(
        [subject],
        labels,
        (AuditedNoise(name=model, words=model),),
        settings,
        report=lambda line: None,
        metric=metric,
        label_sets=sets,
    )
    noted = (collected.note, collected.note_on_sizes, matching_note)
    notes = [f"note: {note}" for note in noted if note is not None]
    return conclude(
        measured,
        settings,
        model=model,
        dataset=dataset,
        class_names=class_names,
        origin={"split": None, "steps": None, "config": None, "command": None, "notes": notes},
    )


def _classes(
    labels: np.ndarray, names: Sequence[str] | None, class_names: Sequence[str] | None
) -> tuple[np.ndarray, str | None]:
    """Returns labels as columns of the logits, and the note of `in_columns`, if any."""
    if np.asarray(labels).dtype.kind in "USO":  # names already
        return as_classes(labels, class_names), None
    numbers, note = in_columns(as_classes(labels), names, class_names)
    return as_classes(numbers, class_names), note


def _label_sets(argument: Any, collected: Examples, *, is_moved: bool) -> np.ndarray | None:
    """Returns the label sets from the argument or from the batches, as `as_label_sets` does.

    Raises:
      ValueError: both have sets, or the labels were renumbered by name, which sets cannot be.
    """
    if argument is not None and collected.label_sets is not None:
        raise ValueError('label_sets: the batches have "label_set", too; give one of the two')
    sets = collected.label_sets if argument is None else argument
    if sets is None:
        return None
    if is_moved:
        raise ValueError(
            "label_sets are numbers of columns of the logits, but the labels are names, or numbers "
            "in another order: give the labels as columns as well, and leave class_names out"
        )
    return as_label_sets(sets, len(collected.inputs))


def _settings_for(settings: AuditSettings | None, collected: Examples) -> AuditSettings:
    """Returns the settings, or by default those with the batch size of a loader."""
    if settings is not None:
        return settings
    size = collected.batch_size
    if size is not None and 2 <= size <= len(collected.inputs) // MIN_BATCHES:
        return AuditSettings(batch_sizes=(size,), mixed_batches=True)
    return AuditSettings()


def conclude(
    measured: Measurements,
    settings: AuditSettings,
    *,
    model: str,
    dataset: str,
    class_names: Sequence[str] | None,
    origin: dict[str, Any],
    measurement: str | None = None,
) -> Audit:
    """Makes the audit from its measurements, and records where and when they were made.

    Args:
      measured: the measurements.
      settings: the settings that they were made with.
      model, dataset, class_names: names for the report; they are made printable here.
      origin: further fields of audit.json.
      measurement: the digest that identifies this audit, from `identify`; by default it is made
        from these names, the settings, the labels and the predictions.
    """
    model, dataset = printable(model), printable(dataset)
    if class_names is not None:
        class_names = [printable(str(name)) for name in class_names]
    if measurement is None:
        seen = [*measured.clean, *(p for c in measured.cells for p in c.shuffled.predictions)]
        predicted = b"".join(p.rank.tobytes() + p.predicted.tobytes() for p in seen)
        what = {"model": model, "dataset": dataset, "classes": class_names}
        what |= {"predicted": hashlib.sha256(predicted).hexdigest()}  # identifies the functions
        if measured.label_sets is not None:
            what["label_sets"] = hashlib.sha256(measured.label_sets.tobytes()).hexdigest()
        measurement = identify(settings, measured.labels, measured.metric, what)
    summary = Summary(measured, settings, class_names)
    content = {
        "measurement": measurement,
        "question": f"Where does the accuracy of {model} on {dataset} come from?",
        **summary.to_dict(),
        "model": model,
        "dataset": dataset,
        "project": importlib.metadata.version("pnoise-jax"),
        "commit": _commit(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return Audit(content | origin, measured, summary.verdict)


def identify(
    settings: AuditSettings, labels: np.ndarray, metric: Metric | None, what: Mapping[str, Any]
) -> str:
    """Returns a digest of what an audit measures.

    Args:
      settings: the settings.
      labels: the examples' labels, (n,).
      metric: the metric that is scored in addition to accuracy.
      what: a description of what is audited, which can be written as JSON.
    """
    digest = hashlib.sha256(np.ascontiguousarray(labels).astype(np.int64).tobytes())
    name = getattr(metric, "__name__", str(metric))
    measurement = {"settings": dataclasses.asdict(settings), "metric": name, "what": what}
    digest.update(json.dumps(measurement, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:8]


def _commit() -> str | None:
    """The commit of this project's checkout; None if it is not installed from one."""
    here = Path(__file__)
    try:
        # An installed package can lie inside the checkout of another project.
        for arguments in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
            completed = subprocess.run(
                ["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10
            )
            if completed.returncode:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip()[:12]


def _arrays(measured: Measurements) -> dict[str, np.ndarray]:
    """Results per example: "PROTOCOL/rank" and "…/predicted" (seeds, n), "…/batches" (n,)."""
    protocols = {"clean": measured.clean}
    arrays = {"labels": measured.labels, "seeds": np.array(measured.seeds)}
    if measured.label_sets is not None:
        arrays["label_sets"] = measured.label_sets
    for cell in measured.cells:
        named = {"shuffled": cell.shuffled, "class_sorted": cell.class_sorted}
        named |= {f"partly_sorted {c.mixed_share:g}": c for c in cell.sweep}
        for order, composition in named.items():
            name = f"{cell.noise.name}, {order}, {cell.batch_size}"
            protocols[name] = composition.predictions
            arrays[f"{name}/batches"] = composition.batches
    for name, predictions in protocols.items():
        arrays[f"{name}/rank"] = np.stack([p.rank for p in predictions])
        arrays[f"{name}/predicted"] = np.stack([p.predicted for p in predictions])
    return arrays
