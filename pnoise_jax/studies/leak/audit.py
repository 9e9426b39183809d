"""The leak audit: where does an accuracy come from, the examples or the order they come in?"""

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
    """What an audit found.

    Attributes:
      content: what `audit.json` holds.
      measured: what became of the examples.
      verdict: the answer: its kind, its text, and what they follow from.
    """

    content: dict[str, Any]
    measured: Measurements
    verdict: Verdict

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One for each protocol: top-1 in percent, its interval, what the meter would print."""
        return self.content["rows"]

    def write(self, directory: str | os.PathLike) -> list[Path]:
        """Writes audit.json, .csv and .html, the figures, and predictions.npz.

        predictions.npz holds for each protocol and seed the class that was predicted for each
        example, how many classes the model preferred to the true one, and the example's batch.
        Where the directory holds this audit, made before, it is replaced.

        Raises:
          FileExistsError: the directory holds another audit, or files of these names.
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
    """Audits any function of a batch, of any framework.

    Args:
      apply: inputs (b, ...) to logits (b, classes), as evaluated in the claim: with whatever noise
        or batch statistics it has at inference. A function, a PyTorch or Keras model in the mode in
        which it is, or a fitted estimator of scikit-learn. The last batch of an order may be
        smaller. Every order calls it on all examples; see `AuditSettings.orders`.
      examples: inputs (n, ...) and labels (n,), of any framework, or a loader of such batches,
        which is read into memory. Labels are class numbers, or names that class_names lists.
      clean: the same without noise, or with its batch statistics frozen; None shows ``apply`` one
        example at a time, as a deployed classifier sees them. That takes n calls.
      settings: batch sizes, numbers of orders, confidence and so on; without them a loader's own
        batch size is audited, if there are five such batches.
      metric: scored beside accuracy: a function of a list of (labels, predicted) pairs, one for
        each batch; see `evaluation.METRICS`. The audit says whether it depends on the batching.
      class_names: the name of each column of the logits. Where the data set of a loader names its
        classes, labels are matched with the columns by name.
      label_sets: of examples with several labels all that are correct, as ReaL has them: for each
        example its class numbers, as columns of the logits; an array of them is padded by -1.
        Orders are still sorted by the labels. Batches that are dicts can hold them as "label_set".
      model, dataset: their names, for the report.

    Returns:
      The audit; ``audit(…).write(directory)`` writes the report.

    Raises:
      TypeError: a model or examples of an unknown kind.
      ValueError: labels that do not fit, a batch size that makes no sense, a function that fails on
        a batch, or a clean function whose outputs depend on the batch.
    """
    collected = read_examples(examples)
    if collected.labels is None:
        raise ValueError("examples: there are no labels; give (inputs, labels), or such batches")
    class_names, given = as_names(class_names), np.asarray(collected.labels)
    columns, names = columns_of(apply), own_names(examples)
    if columns is not None:
        given, class_names = by_columns(given, columns, class_names)
        names = None  # the estimator's own labels are matched already
    labels, matched = _classes(given, names, class_names)
    sets = _label_sets(label_sets, collected, is_moved=not np.array_equal(labels, collected.labels))
    if settings is not None and not isinstance(settings, AuditSettings):
        raise TypeError(f"settings={settings!r}: give studies.AuditSettings(…)")
    if metric is not None and not callable(metric):
        raise TypeError(f"metric={metric!r}: give a function, such as METRICS['macro_f1']")
    settings = _settings_for(settings, examples, len(labels)).for_labels(labels, dataset)
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
        with_given_order=not collected.shuffles,
        label_sets=sets,
    )
    notes = [f"note: {note}" for note in (collected.note, matched) if note is not None]
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
    """Labels as columns of the logits, and a sentence where these differ; see `in_columns`."""
    if np.asarray(labels).dtype.kind in "USO":  # names already
        return as_classes(labels, class_names), None
    numbers, note = in_columns(as_classes(labels), names, class_names)
    return as_classes(numbers, class_names), note


def _label_sets(given: Any, collected: Examples, *, is_moved: bool) -> np.ndarray | None:
    """The label sets that are given, or those of the batches, as `as_label_sets` has them.

    Raises:
      ValueError: both are, or the labels were matched by name, which sets are not.
    """
    if given is not None and collected.label_sets is not None:
        raise ValueError('label_sets: the batches have "label_set", too; give one of the two')
    sets = collected.label_sets if given is None else given
    if sets is None:
        return None
    if is_moved:
        raise ValueError(
            "label_sets are numbers of columns of the logits, and the labels here are names, or "
            "numbers of another order: give them as columns as well, and leave class_names out"
        )
    return as_label_sets(sets, len(collected.inputs))


def _settings_for(settings: AuditSettings | None, examples: Any, n: int) -> AuditSettings:
    """Those given, or the defaults with the batch size of a loader."""
    if settings is not None:
        return settings
    size = getattr(examples, "batch_size", None)
    if isinstance(size, int) and 2 <= size <= n // MIN_BATCHES:
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
    """The audit from its measurements, and where and when they were made.

    Args:
      measured: what became of the examples.
      settings: what was asked for.
      model, dataset, class_names: what they are called; made printable here.
      origin: what else audit.json says.
      measurement: tells this audit from others, as `identify` does; by default from these names,
        the settings, the labels and the clean predictions.
    """
    model, dataset = printable(model), printable(dataset)
    if class_names is not None:
        class_names = [printable(str(name)) for name in class_names]
    if measurement is None:
        predicted = b"".join(p.rank.tobytes() + p.predicted.tobytes() for p in measured.clean)
        what = {"model": model, "dataset": dataset, "classes": class_names}
        what |= {"clean": hashlib.sha256(predicted).hexdigest()}  # all that is known of a function
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
    """A digest of what an audit measures.

    Args:
      settings: what is asked for.
      labels: of the examples.
      metric: scored beside accuracy.
      what: is audited: JSON.
    """
    digest = hashlib.sha256(np.ascontiguousarray(labels).astype(np.int64).tobytes())
    name = getattr(metric, "__name__", str(metric))
    asked = {"settings": dataclasses.asdict(settings), "metric": name, "what": what}
    digest.update(json.dumps(asked, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:8]


def _commit() -> str | None:
    """The commit of this project's own checkout; None where it is installed without one."""
    here = Path(__file__)
    try:
        # A checkout of something else around an installed package is not ours.
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
    """Per-example results: "PROTOCOL/rank", "…/predicted", (seeds, n), and "…/batches", (n,)."""
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
