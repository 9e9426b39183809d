"""The standard report: a table of all protocols, on the console."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pnoise_jax.evaluation.protocols import Protocol
from pnoise_jax.terminal import printable


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number from a step or an evaluation, and how to print it.

    Attributes:
      name: the key of the number, such as "top1".
      label: its label for readers, such as "top-1".
      digits: number of digits after the decimal point.
      unit: its unit, such as "percent", which is printed as %.
    """

    name: str
    label: str
    digits: int
    unit: str

    @property
    def heading(self) -> str:
        """The heading of its column: the label, with % if the unit is percent."""
        return f"{self.label} %" if self.unit == "percent" else self.label

    def text(self, value: float) -> str:
        """Returns the label and the number: "top-1 97.0 %"."""
        percent = " %" if self.unit == "percent" else ""
        return f"{self.label} {value:.{self.digits}f}{percent}"


CLASSIFICATION_MEASURES = (
    Measure("top1", "top-1", 1, "percent"),
    Measure("top5", "top-5", 1, "percent"),
    Measure("nll", "NLL", 3, "nats, mean"),
)

EXPLANATION = (
    "Noise that mixes examples makes a prediction depend on the other examples of its batch. In "
    "class order these share its label, which no deployed classifier knows. Any gain of the "
    "class-sorted row over the shuffled one comes from the order of the test set; pnoise audit "
    "tests whether the labels of batch mates are what is read."
)


def print_report(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    *,
    measures: Sequence[Measure] = CLASSIFICATION_MEASURES,
    title: str,
    mixes_batch: bool,
) -> None:
    """Prints a table of the rows that `evaluate` returns.

    Args:
      console: the console to print on.
      rows: one per protocol.
      measures: the columns, named as in the rows.
      title: title of the table.
      mixes_batch: whether the noise mixes examples; if so, the report explains what that means.
    """
    table = Table(title=Text(printable(title)), title_justify="left")
    table.add_column("protocol")
    for column in ("batch", *(measure.heading for measure in measures), "examples"):
        table.add_column(column, justify="right")
    for row in rows:
        protocol = Protocol.of_row(row)
        table.add_row(
            protocol.name,
            str(protocol.batch_size),
            *(f"{row[measure.name]:.{measure.digits}f}" for measure in measures),
            str(row["n"]),
        )
    console.print(table)
    if mixes_batch:
        console.print(EXPLANATION, style="dim")
