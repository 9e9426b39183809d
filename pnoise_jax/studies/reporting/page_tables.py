"""The tables of an audit's page, as data: columns, rows and captions."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pnoise_jax.counting import counted
from pnoise_jax.studies.reporting import figure_captions as captions
from pnoise_jax.studies.reporting import prose, style, tables
from pnoise_jax.terminal import printable

PROTOCOLS = (  # names and looks of the rows
    (style.CLEAN, "clean"),
    (style.SHUFFLED, "shuffled"),
    (style.CLASS_SORTED, "class-sorted"),
)
EFFECTS = {  # what each comparison says
    (style.SHUFFLED, style.CLEAN): "shuffled − clean: the honest effect",
    (style.CLASS_SORTED, style.CLEAN): "class-sorted − clean: what class order shows",
    (style.CLASS_SORTED, style.SHUFFLED): "class-sorted − shuffled: what the order adds",
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One row: its name, the texts of its cells, and its look, which is a CSS class."""

    name: str
    cells: Sequence[str]
    look: str | None = None


@dataclasses.dataclass(frozen=True)
class Group:
    """Lines under one heading; there is no heading if ``title`` is ""."""

    title: str
    lines: Sequence[Line]
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
      name: its name in HTML ids; one word.
      caption: the caption above it.
      heads: the heads of the columns, starting with the column of the lines' names.
      groups: the groups that are always visible.
      more: the groups that are folded away below it.
      strong: the column to set in bold, counted from 1 without the column of names; 0 for none.
      words: whether cells contain words instead of numbers.
    """

    name: str
    caption: str
    heads: Sequence[str]
    groups: Sequence[Group]
    more: Sequence[Group] = ()
    strong: int = 0
    words: bool = False


def protocols(audit: Mapping[str, Any]) -> Table:
    """Returns the table of clean, shuffled and class-sorted for each noise and batch size."""

    def lines(siblings: tables.Siblings) -> list[Line]:
        return [
            Line(name, [tables.with_interval(row), *_protocol_cells(row)], look)
            for (name, look), row in zip(PROTOCOLS, siblings.protocols, strict=True)
        ]

    heads = ("protocol", f"top-1, % ({captions.interval(audit)})", "balanced, %", "top-5, %")
    heads += ("NLL, nats", "mates of same label, %", "label bits per batch", "batch vote, %")
    return Table(
        "protocols",
        captions.protocols_table(audit),
        heads,
        *_split(audit, {(s.noise_id, s.batch_size): lines(s) for s in _siblings(audit)}),
        strong=1,
    )


def meter(audit: Mapping[str, Any]) -> Table:
    """Returns the table of the accuracies that the published program would print, and true ones."""

    def lines(siblings: tables.Siblings) -> list[Line]:
        rows = (siblings.clean, siblings.clean_sorted, siblings.shuffled, siblings.class_sorted)
        names = ("clean, shuffled", "clean, class-sorted", style.SHUFFLED, style.CLASS_SORTED)
        looks = ("clean", "clean", "shuffled", "class-sorted")
        return [
            Line(name, _meter_cells(row), look)
            for name, row, look in zip(names, rows, looks, strict=True)
        ]

    heads = ("protocol", "top-1, %", "printed, %", "printed − true", "top-5, %", "printed top-5, %")
    heads += ("printed − true",)
    groups = {(s.noise_id, s.batch_size): lines(s) for s in _siblings(audit)}
    return Table("meter", captions.meter_table(audit), heads, *_split(audit, groups))


def comparisons(audit: Mapping[str, Any]) -> Table:
    """Returns the table of paired differences, with corrected p-values."""

    def line(row: Mapping[str, Any]) -> Line:
        pair = (row["of"], row["against"])
        cells = [tables.difference(row), tables.significance(row)]
        return Line(EFFECTS.get(pair, " − ".join(pair)), cells)

    heads = ("difference", f"points of top-1 ({captions.interval(audit)})", "p, after Holm")
    return Table(
        "differences",
        captions.comparisons_table(audit),
        heads,
        *_split(audit, _by_cell(audit["comparisons"], line)),
        strong=1,
    )


def orders(audit: Mapping[str, Any]) -> Table:
    """Returns the table of accuracies by kind of order, compared with random orders."""
    count = audit["shuffled_orders"]
    looks = {"shuffled": "shuffled", "class_sorted": "class-sorted"}

    def line(row: Mapping[str, Any]) -> Line:
        random = row["order"] == "shuffled"
        cells = [
            str(row["orders"]),
            tables.number(row["top1"]),
            tables.number(row["deviation"], 2),
            f"{tables.number(row['lowest'])} to {tables.number(row['highest'])}",
            tables.MISSING if random else f"{row['random_orders_below']} of {count}",
        ]
        return Line(row["words"], cells, looks.get(row["order"]))

    heads = ("order", "orders", "mean", "standard deviation", "lowest to highest")
    return Table(
        "orders",
        captions.orders_table(audit),
        (*heads, "above random orders"),
        *_split(audit, _by_cell(audit["orders"], line)),
        strong=2,
    )


def interventions(audit: Mapping[str, Any]) -> Table:
    """Returns the table of predictions for targets among mates of one class."""

    def line(row: Mapping[str, Any]) -> Line:
        numbers = [tables.number(row[key]) for key in ("called", "called_other")]
        ends = [tables.signed(row["logit"], 2)]
        ends += [tables.p_value(row[key]) for key in ("p_toward", "p_away")]
        return Line(prose.target(row), [str(row["batches"]), *numbers, *ends])

    details = {
        cell: f"{counted(rows[0]['mates'], 'mate')}, {counted(rows[0]['pairs'], 'pair')}"
        for cell, rows in tables.by_cell(audit["interventions"]).items()
    }
    heads = ("target", "batches", "called the class of its mates, %", "called the other class, %")
    return Table(
        "interventions",
        captions.interventions_table(audit),
        (*heads, "logit shift, sd", "p, towards the mates", "p, away from them"),
        *_split(audit, _by_cell(audit["interventions"], line), details),
        strong=2,
    )


def exact_check(audit: Mapping[str, Any]) -> Table:
    """Returns the table of the exact check: whether predictions depend on the batch."""
    seeds = len(audit["seeds"])

    def examples(check: Mapping[str, Any]) -> str:
        return str(check["examples"]) if seeds == 1 else f"{seeds} × {check['examples']}"

    groups = []
    for finding in audit["findings"]:
        check = finding["verdict"]["evidence"]["dependence"]
        orders, changed = tables.MISSING, tables.MISSING
        if check["orders"]:
            orders, changed = str(check["orders"]), f"{check['changed']} of {examples(check)}"
        cells = [tables.small(check["largest_change"]), tables.small(check["allowed"])]
        cells += [str(check["batches"]), orders, changed]
        groups.append(Group(_title(finding), [Line(captions.dependence(check), cells)]))
    heads = ("result", "largest change of a logit", "allowed for rounding", "batches")
    heads += ("orders", "examples predicted differently")
    return Table("check", captions.check_table(audit), heads, groups)


def classes(audit: Mapping[str, Any]) -> Table:
    """Returns the table of the classes that change most."""
    lines = []
    for c in tables.most_changed(audit):
        accuracies = [tables.number(c[key]) for key in ("clean", "shuffled", "class_sorted")]
        change = tables.signed(c["class_sorted"] - c["clean"])
        lines.append(Line(c["name"], [str(c["n"]), *accuracies, change]))
    heads = ("class", "examples", *(name for name, _ in PROTOCOLS), "class-sorted − clean")
    return Table("classes", captions.classes_table(audit), heads, [Group("", lines)])


def configuration(fields: Iterable[tuple[str, Any]]) -> Table:
    """Returns the table of the run's config, field by field."""
    lines = [Line(printable(name), [printable(repr(value))]) for name, value in fields]
    return Table(
        "configuration",
        "The configuration of the run.",
        ("field", "value"),
        [Group("", lines)],
        words=True,
    )


def _protocol_cells(row: Mapping[str, Any]) -> list[str]:
    purity = None if row["purity"] is None else 100 * row["purity"]
    return [
        tables.number(row["balanced"]),
        tables.number(row["top5"]),
        tables.number(row["nll"], 2),
        tables.number(purity),
        tables.number(row["label_bits_per_batch"]),
        tables.number(row["batch_vote_top1"]),
    ]


def _meter_cells(row: Mapping[str, Any]) -> list[str]:
    cells = []
    for true, printed in (("top1", "printed"), ("top5", "printed_top5")):
        cells += [tables.number(row[true]), tables.number(row[printed])]
        cells.append(tables.signed(row[printed] - row[true]))
    return cells


def _siblings(audit: Mapping[str, Any]) -> list[tables.Siblings]:
    return [siblings for group in tables.by_noise(audit).values() for siblings in group]


def _by_cell(
    rows: Iterable[Mapping[str, Any]], line: Callable[[Mapping[str, Any]], Line]
) -> dict[tuple[str, int], list[Line]]:
    return {cell: list(map(line, cell_rows)) for cell, cell_rows in tables.by_cell(rows).items()}


def _split(
    audit: Mapping[str, Any],
    lines: Mapping[tuple[str, int], Sequence[Line]],
    details: Mapping[tuple[str, int], str] | None = None,
) -> tuple[list[Group], list[Group]]:
    """Returns groups at the batch size of each noise's verdict, and groups at other sizes."""
    shown = {(f["noise_id"], f["batch_size"]) for f in audit["findings"]}
    groups: tuple[list[Group], list[Group]] = ([], [])
    for cell, of_cell in lines.items():
        noise_id, size = cell
        detail = f"batches of {size}"
        if details and cell in details:
            detail += f"; {details[cell]}"
        groups[cell not in shown].append(Group(noise_id, of_cell, detail))
    return groups


def _title(finding: Mapping[str, Any]) -> str:
    return f"{finding['noise_id']}, batches of {finding['batch_size']}"
