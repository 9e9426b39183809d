"""The table of all pairs of domains, on the console and as a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from rich.console import Console
from rich.table import Table

from pnoise_jax.studies.adaptation import page_tables
from pnoise_jax.studies.adaptation.methods import Method
from pnoise_jax.studies.adaptation.page import LEAK, PROVEN
from pnoise_jax.studies.adaptation.reference import TABLES, official_metric
from pnoise_jax.studies.reporting import page as pages
from pnoise_jax.studies.reporting.tables import number


def print_table(
    console: Console, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], metric: str
) -> None:
    """Prints means over seeds, in percent, with a dash for a missing pair."""
    title = f"{page_tables.METRIC_NAMES[metric]} by ordered pair, %"
    shown = Table(title=title, title_justify="left")
    shown.add_column("method")
    for column in (*columns, "average"):
        shown.add_column(column, justify="right")
    for row in rows:
        name = f"{Method(row['method'], row['noise']).label}, {_protocol(row)}"
        shown.add_row(name, *(number(row[column]) for column in (*columns, "average")))
    console.print(shown)


def _protocol(row: Mapping[str, Any]) -> str:
    return page_tables.PROTOCOL_NAMES[row["protocol"]]


def render(
    rows: Sequence[Mapping[str, Any]],
    studied: Mapping[str, Mapping[str, Any] | None],
    config: ml_collections.ConfigDict,
    metric: str,
) -> str:
    """Renders the page as HTML.

    Args:
      rows: the rows from `pairs.table`.
      studied: by pair, the content of its adaptation.json, or None if it is missing.
      config: the config of all pairs.
      metric: the metric of all rows. Published rows use the official metric, and are left out if
        this is another one.
    """
    reference, columns = TABLES.get(config.data.name), list(studied)
    official = metric == official_metric(config.data.name)
    if reference is not None and (list(reference.columns) != columns or not official):
        reference = None
    done = {pair: study for pair, study in studied.items() if study is not None}
    return pages.template("adaptation_pairs.html").render(
        css=pages.stylesheet(),
        dataset=config.data.name,
        model=config.model.name,
        done=done,
        missing=[pair for pair in columns if pair not in done],
        table=page_tables.pairs(rows, columns, reference, metric),
        notes=[]
        if reference is None
        else [f"{r.name}: {r.note}." for r in reference.rows if r.note],
        leak=LEAK,
        proven=PROVEN,
    )
