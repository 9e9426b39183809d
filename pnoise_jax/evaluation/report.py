"""The standard report: the protocols side by side, on the console."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pnoise_jax.evaluation.protocols import Protocol
from pnoise_jax.terminal import printable

EXPLANATION = (
    "Noise that mixes examples makes a prediction depend on the other examples of its batch. In "
    "class order these share its label, which no deployed classifier knows. What the class-sorted "
    "row gains over the shuffled one comes from the order of the test set; launch.audit tests "
    "whether the labels of batch mates are what is read."
)


def print_report(
    console: Console, rows: Sequence[Mapping[str, Any]], *, title: str, mixes_batch: bool
) -> None:
    """Prints a table of the rows that `evaluate` gives.

    Args:
      console: where to.
      rows: one per protocol.
      title: of the table.
      mixes_batch: whether the noise mixes examples; if so, it is said what that means.
    """
    table = Table(title=Text(printable(title)), title_justify="left")
    table.add_column("protocol")
    for column in ("batch", "top-1 %", "top-5 %", "NLL", "examples"):
        table.add_column(column, justify="right")
    for row in rows:
        protocol = Protocol(row["noise"], row["order"], row["batch_size"])
        table.add_row(
            protocol.name,
            str(protocol.batch_size),
            f"{row['top1']:.1f}",
            f"{row['top5']:.1f}",
            f"{row['nll']:.3f}",
            str(row["n"]),
        )
    console.print(table)
    if mixes_batch:
        console.print(EXPLANATION, style="dim")
