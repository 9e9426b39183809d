"""The report of anomaly detection: a table for the terminal, a JSON file, and the figure."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from rich.table import Table
from rich.text import Text

from pnoise_jax import denoising, writing
from pnoise_jax.runs import RunDirectory
from pnoise_jax.studies.anomaly.figure import roc_figure
from pnoise_jax.studies.anomaly.study import Detection
from pnoise_jax.studies.reporting import style
from pnoise_jax.terminal import printable

FILES = ("anomaly.json", "anomaly.svg", "anomaly.png")


def tables(detections: Sequence[Detection]) -> list[Table]:
    """Returns one table, with a row for each run, and the mean if there are several.

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
    """Returns the content of anomaly.json, with one entry for each run."""
    return [
        {
            "held_out": list(each.held_out),
            **_asked(each.run, each.config),
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
    """Returns a curve for JSON; the first threshold, infinity, is None, as JSON has no infinity."""
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


def _asked(workdir: str | os.PathLike, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the run and its config, which identify an entry, as stored in anomaly.json."""
    run = RunDirectory.at(workdir).path
    return {"run": str(run), "config": json.loads(config.to_json_best_effort())}


def require_own(
    directory: Path,
    runs: Sequence[tuple[str | os.PathLike, ml_collections.ConfigDict]],
    *,
    named: str,
) -> None:
    """Checks that a report would replace only an earlier report of the same runs.

    Args:
      directory: the directory to write the report to.
      runs: the directory and the config of each run.
      named: the name of the directory in messages.

    Raises:
      FileExistsError: the directory has a report of other runs, data or settings.
      OSError: the path of a file is taken by something else.
    """
    writing.require_places(directory, named=named, files=FILES)
    existing = [name for name in FILES if (directory / name).exists()]
    if not existing:
        return
    asked = [_asked(*each) for each in runs]
    try:
        entries = json.loads((directory / FILES[0]).read_bytes())
        replaced = [{key: entry[key] for key in ("run", "config")} for entry in entries]
        others = [entry for entry in replaced if entry not in asked]
    except (OSError, ValueError, KeyError, TypeError):
        others = existing
    if others:
        raise FileExistsError(
            f"{named} contains another report ({', '.join(existing)}), of other runs, data or "
            "settings, which would be overwritten: choose another directory with --out, or move it "
            "away"
        )


def write(directory: Path, detections: Sequence[Detection]) -> None:
    """Writes `FILES` to a directory.

    Args:
      directory: an existing directory.
      detections: at least one.
    """
    figure = roc_figure(detections)
    text = json.dumps(content(detections), indent=1, allow_nan=False) + "\n"
    for name, data in zip(FILES, (text, style.svg(figure), style.png(figure)), strict=True):
        writing.replace_file(directory / name, data)
