"""The output of a study: the table on the console, CSV, figures and the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pnoise_jax.studies.adaptation import figures, page
from pnoise_jax.studies.adaptation.measuring import Measured
from pnoise_jax.studies.adaptation.methods import StudyRun
from pnoise_jax.studies.adaptation.page_tables import METRIC_NAMES, cells, heads
from pnoise_jax.studies.adaptation.summary import Row
from pnoise_jax.studies.reporting import style
from pnoise_jax.writing import csv_text, replace_file

_COLUMNS = ("method", "noise", "seed", "protocol", "accuracy", "per_class_mean", "n", "purity")


def rows_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the rows of adaptation.json as CSV."""
    return csv_text(_COLUMNS, rows)


def print_table(console: Console, content: Mapping[str, Any], table: Sequence[Row]) -> None:
    """Prints the table and its sentences."""
    title = f"{content['pair']}: {METRIC_NAMES[content['metric']]}, %"
    shown = Table(title=title, title_justify="left")
    for number, head in enumerate(heads()):
        shown.add_column(head, justify="right" if number else "left")
    for row in table:
        shown.add_row(row.method.label, *cells(row))
    console.print(shown)
    for sentence in content["sentences"]:
        console.print(sentence, soft_wrap=True)


def write_page(
    path: Path,
    content: Mapping[str, Any],
    table: Sequence[Row],
    runs: Sequence[StudyRun],
    measured: Sequence[Measured],
) -> list[Path]:
    """Draws the figures, and writes the figures and adaptation.html.

    Returns:
      The files of the study, adaptation.json first.
    """
    drawn = figures.draw(path, runs, measured)
    svgs = {name: style.svg(figure) for name, figure in drawn.items()}
    written = [path / "adaptation.json", path / "adaptation.csv"]
    for name, figure in drawn.items():
        for suffix, data in (("svg", svgs[name]), ("png", style.png(figure))):
            file = path / f"adaptation_{name}.{suffix}"
            replace_file(file, data)
            written.append(file)
    file = path / "adaptation.html"
    replace_file(file, page.render(content, table, svgs))
    return [*written, file]
