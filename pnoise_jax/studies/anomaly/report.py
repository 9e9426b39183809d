"""The numbers of anomaly detection: a table for the terminal, and everything for JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from pnoise_jax import denoising
from pnoise_jax.studies.anomaly.study import Detection
from pnoise_jax.terminal import printable


def tables(detections: Sequence[Detection]) -> list[Table]:
    """One table: a row for each run, and the mean of several.

    Args:
      detections: at least one.
    """
    first = detections[0]
    title = f"anomalies among {first.data} ({first.split}), by {first.model}"
    table = Table(title=Text(printable(title)), title_justify="left")
    table.add_column("held out")
    for column in ("AUROC (95 %)", "nearest training image", "anomalies", "normal"):
        table.add_column(column, justify="right")
    for each in detections:
        sizes = str(each.curve.anomalous), str(each.curve.normal)
        areas = _with_interval(each.curve), _with_interval(each.nearest)
        table.add_row(Text(printable(", ".join(each.held_out))), *areas, *sizes)
    if len(detections) > 1:
        nearest = [each.nearest.auroc for each in detections if each.nearest is not None]
        means = (_mean([each.curve.auroc for each in detections]), _mean(nearest))
        table.add_row("mean", *means, "", "", style="bold")
    return [table]


def _with_interval(curve: denoising.RocCurve | None) -> str:
    if curve is None:
        return "–"
    if curve.interval is None:
        return f"{curve.auroc:.3f} ({curve.no_interval})"
    low, high = curve.interval
    return f"{curve.auroc:.3f} ({low:.3f} to {high:.3f})"


def _mean(areas: Sequence[float]) -> str:
    return f"{np.mean(areas):.3f}" if areas else "–"


def content(detections: Sequence[Detection]) -> list[dict[str, Any]]:
    """Everything, for JSON: one entry for each run."""
    return [
        {
            "held_out": list(each.held_out),
            "run": str(each.run),
            "data": each.data,
            "split": each.split,
            "model": each.model,
            "step": each.step,
            "reconstruction_error": _curve(each.curve),
            "nearest_training_image": None if each.nearest is None else _curve(each.nearest),
        }
        for each in detections
    ]


def _curve(curve: denoising.RocCurve) -> dict[str, Any]:
    """A curve; its first threshold, infinity, becomes None, since JSON has no infinity."""
    return {
        "auroc": curve.auroc,
        "interval": None if curve.interval is None else list(curve.interval),
        "no_interval": curve.no_interval,
        "confidence": curve.confidence,
        "normal": curve.normal,
        "anomalous": curve.anomalous,
        "false_positive_rate": curve.false_positive_rate.tolist(),
        "true_positive_rate": curve.true_positive_rate.tolist(),
        "thresholds": [x if np.isfinite(x) else None for x in curve.thresholds.tolist()],
    }
