"""The leak audit: does noise help, or does it read labels from the order of the test set?"""

import dataclasses
import datetime
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pnoise_jax.studies.leak.measure import Measurements, measure
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.subjects import AuditedNoise, FunctionSubject
from pnoise_jax.studies.leak.summary import Summary
from pnoise_jax.studies.report import replace_file, write_audit


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
      content: what `audit.json` holds; ``content["verdict"]`` is the answer in a sentence.
      measured: what became of every example.
    """

    content: dict[str, Any]
    measured: Measurements

    @property
    def verdict(self) -> str:
        """The answer in a sentence."""
        return self.content["verdict"]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One for each protocol: top-1 in percent, its interval, the vote of the batch."""
        return self.content["rows"]

    def write(self, directory: str | os.PathLike) -> list[Path]:
        """Writes audit.json, .csv and .html, the figures, and predictions.npz.

        predictions.npz holds for each protocol and seed the class that was predicted for each
        example, how many classes the model preferred to the true one, and the example's batch.

        Raises:
          OSError: the directory cannot be written.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        paths = write_audit(directory, self.content)
        content = io.BytesIO()
        np.savez_compressed(content, **_arrays(self.measured))
        replace_file(directory / "predictions.npz", content.getvalue())
        return [*paths, directory / "predictions.npz"]


def audit(
    apply: Callable[[np.ndarray], np.ndarray],
    examples: tuple[np.ndarray, np.ndarray],
    *,
    clean: Callable[[np.ndarray], np.ndarray] | None = None,
    settings: AuditSettings | None = None,
    model: str = "the model",
    dataset: str = "the data",
) -> Audit:
    """Audits any function of a batch, of any framework.

    Args:
      apply: images (b, ...) to logits (b, classes), as evaluated in the claim: with whatever noise
        it has at inference. The last batch of an order may be smaller.
      examples: images (n, ...) and labels (n,) in 0..classes-1.
      clean: the same without noise; None shows ``apply`` one image at a time, as a deployed
        classifier sees them. That takes n calls.
      settings: batch sizes, confidence and so on.
      model, dataset: their names, for the report.

    Returns:
      The audit; ``audit(…).write(directory)`` writes the report.

    Raises:
      ValueError: labels that do not fit, a batch size that makes no sense, or a clean function
        whose outputs depend on the batch.
    """
    images, labels = _check_examples(*examples)
    settings = (settings or AuditSettings()).for_labels(labels, dataset)
    settings.over_seeds(1)
    noise = AuditedNoise(name=f"the noise of {model}", words=f"the noise of {model}")
    subject = FunctionSubject(
        apply, clean, images, labels, seed=0, batch_size=max(settings.batch_sizes)
    )
    measured = measure([subject], labels, (noise,), settings, report=lambda line: None)
    content = summarise(measured, settings, model=model, dataset=dataset)
    return Audit(content | {"split": None, "steps": None, "config": None}, measured)


def summarise(
    measured: Measurements, settings: AuditSettings, *, model: str, dataset: str
) -> dict[str, Any]:
    """What `audit.json` says of the measurements, and where and when they were made."""
    return {
        "question": (
            f"Does noise at inference help {model} on {dataset}, or does it read labels from the "
            "order of the test set?"
        ),
        **Summary(measured, settings).to_dict(),
        "model": model,
        "dataset": dataset,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": None,
    }


def _check_examples(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(images), np.asarray(labels)
    if labels.ndim != 1 or images.shape[:1] != labels.shape:
        raise ValueError(
            f"examples: images of shape {images.shape} and labels of shape {labels.shape}; give "
            "images (n, ...) and labels (n,)"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(
            f"examples: labels are {labels.dtype} from {labels.min()}; give classes from 0, as "
            "integers"
        )
    return images, labels.astype(np.int32)


def _arrays(measured: Measurements) -> dict[str, np.ndarray]:
    """Per-example results: "PROTOCOL/rank", "…/predicted", (seeds, n), and "…/batches", (n,)."""
    protocols = {"clean": measured.clean}
    arrays = {"labels": measured.labels, "seeds": np.array(measured.seeds)}
    for cell in (*measured.grid, *measured.sweep):
        share = "" if cell.mixed_share is None else f" {cell.mixed_share:g}"
        name = f"{cell.noise.name}, {cell.order}{share}, {cell.batch_size}"
        protocols[name] = cell.predictions
        arrays[f"{name}/batches"] = cell.batches
    for name, predictions in protocols.items():
        arrays[f"{name}/rank"] = np.stack([p.rank for p in predictions])
        arrays[f"{name}/predicted"] = np.stack([p.predicted for p in predictions])
    return arrays
