"""Summarises a sweep as a table and a figure: means over seeds, compared with the first cell.

Intervals use Student's t over seeds, and so does the p-value of a difference, paired by seed. They
express how certain a mean over trainings is on this one test set: all seeds share the test set, one
shuffled order and one draw of random noise (evaluation.seed). Each interval is valid on its own.
p-values are corrected by Holm's method over all differences of the summary, and a difference is
resolved if its corrected p-value is at most 1 - `CONFIDENCE`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pnoise_jax import evaluation
from pnoise_jax.studies.reporting import style
from pnoise_jax.studies.reporting.figures import Line, Panel, sweep_figure
from pnoise_jax.studies.sweep.cells import Cell, name_of, short
from pnoise_jax.studies.sweep.results import FORMAT, PROTOCOLS, Results, Row, write_csv
from pnoise_jax.terminal import printable
from pnoise_jax.training import HARMLESS
from pnoise_jax.writing import replace_file

CONFIDENCE = 0.95
DIFFERENCES = ("difference", "at_inference")  # fields of a group
_LINES = dict(zip(PROTOCOLS, (style.CLEAN, style.SHUFFLED, style.CLASS_SORTED), strict=True))


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds: of top-1 in percent, or of a difference in points.

    Attributes:
      value: the mean; None if there are no values.
      low, high: the ends of its interval; None with fewer than two seeds, or if all seeds have the
        same value, because Student's t then says nothing about other seeds.
      p_value: for the hypothesis that a difference is 0; None without an interval.
      p_adjusted: the p-value corrected for the number of differences in the summary.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None

    @property
    def resolved(self) -> bool | None:
        """Whether a difference is significant after the correction; None without a p-value."""
        return None if self.p_adjusted is None else self.p_adjusted <= 1 - CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that agree in everything but the seed.

    Attributes:
      values: the values of their swept fields, without the seed.
      rows: the rows of results.csv by seed.
      means: the mean of each protocol.
      difference: clean accuracy minus the first group's, paired by seed: the effect of this
        training, or of averaging over views. An empty `Mean` for the first group, and if the data
        differ from the first group's.
      common_seeds: the number of seeds that `difference` is based on, which are the seeds shared
        with the first group. None for the first group, and if the data differ.
      at_inference: noisy shuffled minus clean, paired by seed: the effect of the noise in use.
    """

    values: dict[str, str]
    rows: dict[str, Row]
    means: dict[str, Mean]
    difference: Mean
    common_seeds: int | None
    at_inference: Mean


def summarise(cells: Sequence[Cell], results: Results) -> list[Group]:
    """Returns the groups of a finished sweep, in its order; the first is the baseline."""
    by_values: dict[tuple, dict[str, Row]] = {}
    for cell in cells:
        values = tuple((k, v) for k, v in cell.values.items() if k != "seed")
        seed = cell.values.get("seed", str(cell.experiment.config.seed))
        row = results.get(cell)
        assert row is not None, f"{cell.name} is not finished"
        by_values.setdefault(values, {})[seed] = row
    first, baseline = next(iter(by_values.items()))
    groups = []
    for values, rows in by_values.items():
        means = {name: mean_of(_top1(rows, name)) for name in PROTOCOLS}
        difference, common_seeds = Mean(), None
        if rows is not baseline and _data(values) == _data(first):
            common = [seed for seed in rows if seed in baseline]
            pair = [
                _top1({seed: by_seed[seed] for seed in common}, "clean")
                for by_seed in (rows, baseline)
            ]
            difference, common_seeds = _paired(*pair), len(common)
        noisy = {seed: row for seed, row in rows.items() if row["shuffled_top1"]}
        pair = [_top1(noisy, protocol) for protocol in ("shuffled", "clean")]
        at_inference = _paired(*pair) if noisy else Mean()
        groups.append(Group(dict(values), rows, means, difference, common_seeds, at_inference))
    return _corrected(groups)


def _corrected(groups: Sequence[Group]) -> list[Group]:
    """Returns the groups with p-values adjusted over all differences that have one."""
    tested = [
        (row, name)
        for row, group in enumerate(groups)
        for name in DIFFERENCES
        if getattr(group, name).p_value is not None
    ]
    p_values = [getattr(groups[row], name).p_value for row, name in tested]
    corrected = list(groups)
    for (row, name), p in zip(tested, evaluation.adjust_p_values(p_values), strict=True):
        mean = dataclasses.replace(getattr(corrected[row], name), p_adjusted=float(p))
        corrected[row] = dataclasses.replace(corrected[row], **{name: mean})
    return corrected


def _data(values: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the swept fields that determine the data trained and tested on."""
    return [
        (k, v)
        for k, v in values
        if k == "evaluation.classes" or (k.startswith("data.") and not k.startswith(HARMLESS))
    ]


def _top1(rows: dict[str, Row], protocol: str) -> list[float]:
    texts = [row[f"{protocol}_top1"] for row in rows.values()]
    return [float(text) for text in texts if text]


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> Mean:
    return mean_of([a - b for a, b in zip(ours, theirs, strict=True)], test=True)


def mean_of(values: Sequence[float], *, test: bool = False) -> Mean:
    """Returns the mean over seeds, its interval and, if ``test``, its p-value."""
    if not values:
        return Mean()
    mean = float(np.mean(values))
    if len(values) < 2:
        return Mean(mean)
    if np.ptp(values) < 1e-9:  # without variance, nothing is known about other seeds
        return Mean(mean)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    estimate = evaluation.student(mean, error, len(values) - 1, confidence=CONFIDENCE)
    return Mean(mean, *estimate.interval, estimate.p_value if test else None)


def write_summary(path: Path, groups: Sequence[Group]) -> None:
    """Writes summary.csv, with one row for each group."""
    rows = []
    for group in groups:
        row: dict[str, Any] = {"format": FORMAT, **group.values, "seeds": len(group.rows)}
        for name, mean in group.means.items():
            row |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
        row["difference_seeds"] = group.common_seeds
        for name in DIFFERENCES:
            mean = getattr(group, name)
            row |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
            row |= {f"{name}_p_value": mean.p_value, f"{name}_p_adjusted": mean.p_adjusted}
            resolved = None if mean.resolved is None else str(mean.resolved).lower()
            row[f"{name}_resolved"] = resolved
        rows.append(row)
    write_csv(path, list(rows[0]), rows)


def print_summary(console: Console, groups: Sequence[Group], *, title: str) -> None:
    """Prints a line for each group, and an explanation of the columns."""
    table = Table(
        title=Text(printable(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("cell", min_width=16)
    for protocol in PROTOCOLS:
        table.add_column(protocol.replace("_", "-"), justify="right", no_wrap=True)
    for column, name in zip(("Δ clean", "Δ inference"), DIFFERENCES, strict=True):
        # Only the words after the number and its interval may continue on the next line.
        width = max(len(_cell(getattr(group, name), sign="+")) for group in groups)
        table.add_column(column, justify="right", min_width=width)
    for group in groups:
        table.add_row(
            Text(printable(name_of(group.values))),
            *(_cell(group.means[name]) for name in PROTOCOLS),
            _change(group.difference) + _on_common_seeds(group, groups[0]),
            _change(group.at_inference),
        )
    console.print(table)
    console.print(_explain(groups), style="dim")


def _explain(groups: Sequence[Group]) -> str:
    counts = sorted({len(group.rows) for group in groups})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    if counts[-1] < 2:
        return "Top-1 in percent, of one seed: there are no intervals. Give several in sweep()."
    tested = [getattr(group, name) for group in groups for name in DIFFERENCES]
    count = sum(mean.p_value is not None for mean in tested)
    return (
        f"Top-1 in percent: mean over {seeds} seeds ± half of the {100 * CONFIDENCE:g} % interval "
        "(Student's t); shuffled and class-sorted with noise. Δ clean: clean minus the first "
        "line's clean; Δ inference: shuffled minus clean; both paired by seed. If a line "
        "and the first have different seeds, the number of common seeds follows Δ clean. A "
        "difference is not resolved if its p-value, corrected by Holm over the table's "
        f"{count} differences, is above {1 - CONFIDENCE:.2g}; that does not prove it small. The "
        "intervals are not corrected. All seeds share one test set, one shuffled order and one "
        "draw of random noise (evaluation.seed). summary.csv has the p-values."
    )


def _cell(mean: Mean, sign: str = "") -> str:
    if mean.value is None:
        return ""
    half = ""
    if mean.low is not None and mean.high is not None:
        half = f" ± {(mean.high - mean.low) / 2:.1f}"
    return f"{mean.value:{sign}.1f}{half}"


def _change(mean: Mean) -> str:
    unresolved = " not resolved" if mean.resolved is False else ""
    return _cell(mean, sign="+") + unresolved


def _on_common_seeds(group: Group, first: Group) -> str:
    """Returns the number of common seeds, if these are not all seeds of both groups."""
    count = group.common_seeds
    if count is None or count == len(group.rows) == len(first.rows):
        return ""
    return f" ({count} seed{'s' * (count > 1)})" if count else "no common seed"


def panels(groups: Sequence[Group]) -> list[Panel]:
    """Returns a panel per swept number and set of groups that agree in everything else.

    Fewer than three values make no panel.
    """
    drawn = []
    for field in groups[0].values:
        lines: dict[tuple, list[tuple[float, Group]]] = {}
        for group in groups:
            x = _number(group.values[field])
            if x is not None:
                others = tuple((k, v) for k, v in group.values.items() if k != field)
                lines.setdefault(others, []).append((x, group))
        for others, points in lines.items():
            if len(points) >= 3:
                points.sort(key=lambda point: point[0])
                drawn.append(_panel(field, dict(others), points))
    return drawn


def _panel(field: str, others: dict[str, str], points: list[tuple[float, Group]]) -> Panel:
    lines = {}
    for protocol, name in _LINES.items():
        means = [group.means[protocol] for _, group in points]
        values, low, high = (
            [value for mean in means if (value := getattr(mean, end)) is not None]
            for end in ("value", "low", "high")
        )
        if len(values) == len(means):
            banded = len(low) == len(high) == len(means)
            lines[name] = Line(values, low if banded else None, high if banded else None)
    return Panel(name_of(others), short(field, [field, *others]), [x for x, _ in points], lines)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def write_figure(directory: Path, groups: Sequence[Group], part: str = "") -> list[Path]:
    """Writes figure.svg and figure.png if a field was swept over three numbers or more.

    Args:
      directory: the directory to write to.
      groups: the groups of the sweep.
      part: a suffix after "figure", for a directory that has results of other cells too.

    Returns:
      The files written.
    """
    drawn = panels(groups)
    if not drawn:
        for name in (f"figure{part}.svg", f"figure{part}.png"):  # left by an earlier sweep
            (directory / name).unlink(missing_ok=True)
        return []
    figure = sweep_figure(drawn)
    files = {f"figure{part}.svg": style.svg(figure), f"figure{part}.png": style.png(figure)}
    for name, content in files.items():
        replace_file(directory / name, content)
    return [directory / name for name in files]
