"""The tables of a study's pages, as data: columns, rows and captions."""

from collections.abc import Mapping, Sequence
from typing import Any

from pnoise_jax.studies.adaptation.methods import Method
from pnoise_jax.studies.adaptation.reference import ReferenceTable
from pnoise_jax.studies.adaptation.summary import Difference, Row, Value
from pnoise_jax.studies.reporting.page_tables import Group, Line, Table
from pnoise_jax.studies.reporting.tables import MISSING, number, signed

METRIC_NAMES = {"accuracy": "accuracy", "per_class_mean": "mean of per-class accuracies"}
PROTOCOL_NAMES = {
    "clean": "clean",
    "noisy_shuffled": "noisy, shuffled",
    "noisy_listed": "noisy, listed order",
}
_LOOKS = {"clean": "clean", "noisy_shuffled": "shuffled", "noisy_listed": "class-sorted"}


def heads() -> tuple[str, ...]:
    """Returns the column headings of the study's table."""
    return (
        "method",
        *PROTOCOL_NAMES.values(),
        "other metric, clean",
        "over source only",
        "gap closed, %",
        "best by target labels",
        "worth of that choice",
    )


def cells(row: Row) -> list[str]:
    """Returns the cells of a line of the study's table, without its name."""
    return [
        *(_value(row.values.get(protocol)) for protocol in PROTOCOL_NAMES),
        number(row.other["clean"]),
        difference(row.adapted),
        number(row.gap_closed, 0),
        number(row.chosen),
        MISSING if row.choice is None else signed(row.choice),
    ]


def methods(content: Mapping[str, Any], rows: Sequence[Row]) -> Table:
    """Returns the study's table."""
    metric = METRIC_NAMES[content["metric"]]
    lines = [Line(row.method.label, cells(row)) for row in rows]
    caption = (
        f"The {metric} on the target in percent, mean over {_seeds(content)}. Checkpoints are the "
        "last of each run, chosen without target labels. “Best by target labels” is the best of "
        "the evaluations without noise during training, as TVT and CDTrans report; its worth is "
        "what that choice adds. “Gap closed” is the share of the clean gap between source only and "
        "target labels."
    )
    return Table("methods", caption, heads(), [Group("", lines)], strong=1)


def effects(rows: Sequence[Row]) -> Table:
    """Returns the table of what noise adds to each method."""
    names = {
        "trained": "in training alone, evaluated clean",
        "shuffled": "in training and at inference, shuffled",
        "order": "listed order − shuffled: what the batch gives away",
    }
    groups = [
        Group(row.method.label, [Line(names[name], _effect(d)) for name, d in row.effects.items()])
        for row in rows
        if row.effects
    ]
    caption = (
        "What noise changes, in points: the first two compared with the same method without noise, "
        "evaluated clean; the last compared with the same runs in shuffled order. Paired by seed "
        "and image; p-values are corrected by Holm over all differences of the study."
    )
    return Table("effects", caption, ("noise", "points", "p, after Holm"), groups, strong=1)


def published(reference: ReferenceTable) -> Table:
    """Returns the table of published rows."""
    columns = (*reference.columns, "average, as printed")
    lines = [
        Line(row.name, [*(number(v) for v in row.values), number(row.average)])
        for row in reference.rows
    ]
    notes = "; ".join(f"{row.name}: {row.note}" for row in reference.rows if row.note)
    caption = f"{reference.title}, in percent, from {reference.origin}. Not measured here. {notes}."
    return Table("published", caption, ("method", *columns), [Group("", lines)])


def pairs(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    reference: ReferenceTable | None,
    metric: str,
) -> Table:
    """Returns the table of all pairs: our rows, then published ones."""
    looks = _LOOKS
    ours = [
        Line(
            f"{Method(row['method'], row['noise']).label}, {PROTOCOL_NAMES[row['protocol']]}",
            [number(row[name]) for name in (*columns, "average")],
            looks[row["protocol"]],
        )
        for row in rows
    ]
    groups = [Group("Measured here", ours, "means over seeds; a dash: still missing")]
    if reference is not None:
        lines = [
            Line(row.name, [*(number(v) for v in row.values), number(row.average)])
            for row in reference.rows
        ]
        groups.append(Group("Published, not measured here", lines, reference.origin))
    caption = f"The {METRIC_NAMES[metric]} on the target of each ordered pair, in percent."
    return Table("pairs", caption, ("method", *columns, "average"), groups)


def difference(value: Difference | None) -> str:
    """Formats a difference as "+1.2 (+0.4 to +2.0)", or as a dash if there is none."""
    if value is None:
        return MISSING
    if value.interval is None:
        return signed(value.value)
    low, high = value.interval
    return f"{signed(value.value)} ({signed(low)} to {signed(high)})"


def _value(value: Value | None) -> str:
    if value is None:
        return MISSING
    if value.interval is None:
        return number(value.value)
    low, high = value.interval
    return f"{number(value.value)} ({number(low)} to {number(high)})"


def _effect(value: Difference) -> list[str]:
    if value.p_value is None:
        return [difference(value), "no interval: too few seeds"]
    p = "< 0.001" if value.p_value < 0.001 else f"{value.p_value:.2g}"
    return [difference(value), p if value.sign else f"{p}, not resolved"]


def _seeds(content: Mapping[str, Any]) -> str:
    count = len(content["seeds"])
    return "one seed" if count == 1 else f"{count} seeds"
