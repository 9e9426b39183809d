"""The result of a statement of the theory: a table of numbers."""

import dataclasses

Cell = str | float


@dataclasses.dataclass(frozen=True)
class Finding:
    """A statement and its numbers.

    Attributes:
      number: the number of the statement in docs/theory.md.
      title: the statement.
      columns: the heads of the columns.
      rows: the rows of the table, unrounded.
    """

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self):
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"{self.title}: {len(self.columns)} columns, but a row is {wrong[0]}")

    def markdown(self) -> str:
        """Returns the table in Markdown, as in docs/theory.md."""
        rule = ("---", *("---:" for _ in self.columns[1:]))
        lines = [self.columns, rule, *(map(_shown, row) for row in self.rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(cell: Cell) -> str:
    """Formats a number with two decimals, or none if it is large; zero has no minus sign."""
    if isinstance(cell, str):
        return cell
    text = f"{cell:.2f}" if abs(cell) < 1000 else f"{cell:,.0f}".replace(",", " ")
    return text.removeprefix("-") if float(text.replace(" ", "")) == 0 else text.replace("-", "−")
