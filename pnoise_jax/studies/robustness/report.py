"""The curves as tables, CSV rows, sentences and files."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from rich.console import Console
from rich.table import Table

from pnoise_jax import noise, training
from pnoise_jax.robustness import KINDS
from pnoise_jax.studies.reporting import style
from pnoise_jax.studies.robustness.figure import AXES, TITLES, curves_figure
from pnoise_jax.studies.robustness.measuring import CurveSettings, Measured
from pnoise_jax.studies.robustness.summary import ENOUGH_SEEDS, Point
from pnoise_jax.studies.robustness.verdict import BOUND, verdicts
from pnoise_jax.terminal import printable
from pnoise_jax.writing import csv_text, replace_file

FILES = ("robustness.json", "robustness.csv", "robustness.svg", "robustness.png")
COLUMNS = tuple(field.name for field in dataclasses.fields(Point))


def sentences(
    points: Sequence[Point],
    measured: Sequence[Measured],
    signs: Sequence[str],
    settings: CurveSettings,
    experiments: Mapping[str, training.Experiment],
) -> list[str]:
    """Describes what the tables do not show: what was evaluated, and how far to trust it.

    Args:
      points: the points of all arms.
      measured: the measured models, which the points summarise.
      signs: the result of `masking.find_signs`.
      settings: the settings of the measurements.
      experiments: one experiment for each arm.
    """
    seeds = points[0].seeds
    over = "seeds and examples" if seeds >= ENOUGH_SEEDS else "examples, not over other seeds"
    texts = [
        "Accuracy, %, of the models in evaluation mode (running statistics of batch norms, no "
        f"dropout, no injected noise), mean of {seeds} seed{'s' * (seeds > 1)}, with 95 % "
        f"intervals over {over}. PGD takes {settings.pgd_steps} "
        f"step{'s' * (settings.pgd_steps > 1)} from a random start. Under attack, an image counts "
        "as right if it is right after two attacks, by cross-entropy and by the margin.",
    ]
    if any(point.beyond for point in points):
        texts.append("* is stronger than in the model's training.")
    texts += _sentences_on_noise(experiments)
    views = {
        arm: experiment.config.evaluation.views
        for arm, experiment in experiments.items()
        if experiment.config.evaluation.views != 1
    }
    if views:
        listed = ", ".join(f"{arm} ({count})" for arm, count in views.items())
        texts.append(
            f"evaluation.views is not used here: {listed}. Each test image is seen once, unshifted."
        )
    if signs:
        texts.append(
            f"{len(signs)} sign{'s' * (len(signs) > 1)} that attacks failed; for these models, "
            "accuracy under attack does not show robustness:"
        )
        texts += [f"- {sign}" for sign in signs]
    return [*texts, *verdicts(measured, settings), BOUND]


def _sentences_on_noise(experiments: Mapping[str, training.Experiment]) -> list[str]:
    """States which arms have noise at inference, which is off here, and what it would change."""
    arms: dict[str, list[str]] = {}
    for arm, experiment in experiments.items():
        acting = [each for each in experiment.injections if each.inference]
        acting = [each for each in acting if not each.noise.is_off]
        if acting:
            arms.setdefault(_consequences(acting), []).append(arm)
    return [
        f"{', '.join(names)}: the noise that acts at inference is off here.{consequences}"
        for consequences, names in arms.items()
    ]


def _consequences(acting: Sequence[noise.Injection]) -> str:
    """Describes what attacks would meet if these injections were on, with a space before it."""
    text = ""
    if any(each.noise.draws or each.draws_layer for each in acting):
        text += (
            " It is random, and with it gradients are, too: an attack that does not average them "
            "over many draws fails, which is not robustness."
        )
    mixing = [each for each in acting if each.noise.mixes_batch]
    if mixing:
        text += " It mixes examples: a prediction depends on other examples of the batch"
        passes_gradients = any(not each.stop_gradient for each in mixing)
        text += ", and gradients reach across them." if passes_gradients else "."
    return text


def print_tables(console: Console, points: Sequence[Point]) -> None:
    """Prints a table for each kind, with a row for each arm and a column for each strength."""
    for kind in KINDS:
        curves: dict[str, list[Point]] = {}
        for point in points:
            if point.kind == kind:
                curves.setdefault(point.arm, []).append(point)
        strengths = [point.strength for point in next(iter(curves.values()))]
        title = f"{TITLES[kind]}: accuracy by {AXES[kind]}, %"
        table = Table(title=title, title_justify="left")
        table.add_column("trained with")
        for strength in strengths:
            table.add_column(f"{strength:.3g}", justify="right")
        for arm, curve in curves.items():
            table.add_row(printable(arm), *map(cell, curve))
        console.print(table)


def cell(point: Point) -> str:
    """Formats a point as "81.2 (79.9–82.4)", with * if it is stronger than in training."""
    star = "*" if point.beyond else ""
    return f"{point.accuracy:.1f}{star} ({point.low:.1f}–{point.high:.1f})"


def asked(config: ml_collections.ConfigDict, settings: CurveSettings) -> dict[str, Any]:
    """Returns the config and settings, which identify a report, as stored in robustness.json."""
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    return {"config": json.loads(config.to_json_best_effort()), "settings": plain}


def require_own(
    path: Path, config: ml_collections.ConfigDict, settings: CurveSettings, *, named: str
) -> None:
    """Raises FileExistsError if the directory has a report of another run or other settings."""
    existing = [name for name in FILES if (path / name).exists()]
    if not existing:
        return
    try:
        stored = json.loads((path / FILES[0]).read_bytes())
        same = {key: stored[key] for key in ("config", "settings")} == asked(config, settings)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise FileExistsError(
            f"{named} contains another report ({', '.join(existing)}), which would be overwritten: "
            "choose another directory, or move it away"
        )


def write(
    path: Path, content: Mapping[str, Any], points: Sequence[Point], console: Console
) -> None:
    """Writes `FILES` to a directory, and prints their names.

    Args:
      path: the directory.
      content: the content of robustness.json.
      points: the points to draw and to write to robustness.csv.
      console: the console to print to.
    """
    figure = curves_figure(points, content["title"])
    rows = [dataclasses.asdict(point) for point in points]
    contents = (
        json.dumps(content, indent=1, allow_nan=False) + "\n",
        csv_text(COLUMNS, rows),
        style.svg(figure),
        style.png(figure),
    )
    for name, data in zip(FILES, contents, strict=True):
        replace_file(path / name, data)
        console.print(f"wrote {printable(str(path / name))}", soft_wrap=True)
