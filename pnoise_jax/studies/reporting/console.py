"""Prints the leak audit: the verdict, and a table of the protocols for each noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pnoise_jax.studies.reporting import figure_captions as captions
from pnoise_jax.studies.reporting import tables
from pnoise_jax.studies.reporting import verdict_labels as kinds
from pnoise_jax.terminal import printable


def print_audit(console: Console, audit: Mapping[str, Any]) -> None:
    """Prints each noise's kinds, verdict and protocols side by side; the verdict's noise first."""
    groups = tables.by_noise(audit)
    first = kinds.headline_finding(audit)
    for finding in (first, *(f for f in audit["findings"] if f is not first)):
        console.print(Text(printable(finding["noise_id"]), style="bold"))
        labels = (kinds.KINDS[name].label for name in finding["verdict"]["kinds"])
        console.print(Text(f"Verdict: {', '.join(labels)}", style="bold"))
        console.print(Text(printable(finding["verdict"]["text"])))
        console.print(_table(audit, groups[finding["noise_id"]]))
    note = (
        f"In brackets: the {captions.interval(audit)} over {audit['interval_over']}. Shuffled: "
        f"mean over {audit['shuffled_orders']} random orders. Printed: what the published program "
        "would print, a mean over batches of the accuracy so far. Batch vote: clean outputs "
        "averaged over a batch, a reference without noise."
    )
    console.print(Text(note, style="dim"))


def _table(audit: Mapping[str, Any], group: Sequence[tables.Siblings]) -> Table:
    """Returns a table with three lines for each batch size; it fits in 80 columns."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("batch", justify="right")
    table.add_column("protocol")
    for name in ("top-1, %", "balanced", "printed", "batch vote"):
        table.add_column(name, justify="right")
    names = ("clean", "shuffled", "class-sorted")
    for siblings in group:
        for name, row in zip(names, siblings.protocols, strict=True):
            table.add_row(
                str(siblings.batch_size) if name == "clean" else "",
                name,
                tables.with_interval(row),
                *(tables.number(row[key]) for key in ("balanced", "printed", "batch_vote_top1")),
                end_section=name == "class-sorted",
            )
    return table
