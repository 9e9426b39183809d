"""What a statement of the theory comes to: a table of figures."""

import dataclasses

Cell = str | float


@dataclasses.dataclass(frozen=True)
class Finding:
    """A statement and its figures.

    Attributes:
      number: of the statement on the page docs/theory.md.
      title: the statement.
      columns: what the figures are.
      rows: of the table; unrounded.
    """

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self):
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"{self.title}: {len(self.columns)} columns, and a row {wrong[0]}")

    def markdown(self) -> str:
        """The table, as the page has it."""
        rule = ("---", *("---:" for _ in self.columns[1:]))
        lines = [self.columns, rule, *(map(_shown, row) for row in self.rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(cell: Cell) -> str:
    """Two decimals, but none of large numbers; no minus sign before a zero."""
    if isinstance(cell, str):
        return cell
    text = f"{cell:.2f}" if abs(cell) < 1000 else f"{cell:,.0f}".replace(",", " ")
    return text.removeprefix("-") if float(text.replace(" ", "")) == 0 else text.replace("-", "−")
