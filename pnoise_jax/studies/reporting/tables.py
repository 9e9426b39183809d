"""Groups the numbers of an audit by noise and batch size, and formats them for readers."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MISSING = "–"


@dataclasses.dataclass(frozen=True)
class Siblings:
    """The rows of one noise and batch size, which are always shown side by side.

    Attributes:
      noise_id: the noise of the two noisy rows.
      batch_size: the batch size of all rows.
      clean: the clean row in shuffled order.
      clean_sorted: the clean row in class order: the same predictions, read in another order.
      shuffled: the noisy row in shuffled order.
      class_sorted: the noisy row in class order.
    """

    noise_id: str
    batch_size: int
    clean: Mapping[str, Any]
    clean_sorted: Mapping[str, Any]
    shuffled: Mapping[str, Any]
    class_sorted: Mapping[str, Any]

    @property
    def protocols(self) -> tuple[Mapping[str, Any], ...]:
        """The rows in the order in which they are shown."""
        return self.clean, self.shuffled, self.class_sorted


def by_noise(audit: Mapping[str, Any]) -> dict[str, list[Siblings]]:
    """Groups the rows of an audit by ``noise_id`` and batch size, in the order of the audit."""
    rows = {(r["noise_id"], r["order"], r["batch_size"]): r for r in audit["rows"]}
    groups: dict[str, list[Siblings]] = {}
    for noise_id, order, size in rows:
        if noise_id is None or order != "shuffled":
            continue
        siblings = Siblings(
            noise_id=noise_id,
            batch_size=size,
            clean=rows[None, "shuffled", size],
            clean_sorted=rows[None, "class_sorted", size],
            shuffled=rows[noise_id, "shuffled", size],
            class_sorted=rows[noise_id, "class_sorted", size],
        )
        groups.setdefault(noise_id, []).append(siblings)
    return groups


def headline(audit: Mapping[str, Any]) -> Siblings:
    """Returns the rows that the verdict is about."""
    wanted = audit["headline"]
    group = by_noise(audit)[wanted["noise_id"]]
    return next(siblings for siblings in group if siblings.batch_size == wanted["batch_size"])


def by_cell(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """Groups rows by ``noise_id`` and batch size, keeping their order."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["noise_id"], row["batch_size"]), []).append(row)
    return groups


def most_changed(audit: Mapping[str, Any], count: int = 8) -> list[Mapping[str, Any]]:
    """Returns the classes whose accuracy changes most from clean to noisy in class order."""
    classes = audit["per_class"]
    return sorted(classes, key=lambda c: (-abs(c["class_sorted"] - c["clean"]), c["class"]))[:count]


def unbalanced(audit: Mapping[str, Any]) -> bool:
    """Returns whether the largest class has at least 1.5 times as many examples as the smallest."""
    counts = [c["n"] for c in audit["per_class"]]
    return bool(counts) and max(counts) >= 1.5 * min(counts)


def number(value: float | None, decimals: int = 1) -> str:
    """Formats a number: 76.1, −51.0 (with a minus sign), or – for None."""
    if value is None:
        return MISSING
    rounded = round(value, decimals) + 0.0  # + 0.0: never a minus before a zero
    return f"{rounded:.{decimals}f}".replace("-", "−")


def small(value: float) -> str:
    """Formats a number of any size with two digits: 4.3e−06, 0.52."""
    return f"{value:.2g}".replace("-", "−")


def signed(value: float, decimals: int = 1) -> str:
    """Formats a difference: +22.7, −51.0, 0.0."""
    text = number(value, decimals)
    return f"+{text}" if round(value, decimals) > 0 else text


def points(value: float) -> str:
    """Formats a number of points: 1 point, 0.5 points."""
    return "1 point" if value == 1 else f"{value:g} points"


def with_interval(row: Mapping[str, Any]) -> str:
    """Formats top-1 and its interval, in percent: 98.8 (97.4 to 100.0)."""
    low, high = row["interval"]
    return f"{number(row['top1'])} ({number(low)} to {number(high)})"


def difference(comparison: Mapping[str, Any]) -> str:
    """Formats a difference with interval: +22.7 (+20.1 to +25.2), or "0.0, exactly" if proven."""
    if proven(comparison):
        return "0.0, exactly"
    low, high = comparison["interval"]
    return f"{signed(comparison['difference'])} ({signed(low)} to {signed(high)})"


def proven(comparison: Mapping[str, Any]) -> bool:
    """Returns whether a difference is known to be 0; an estimate's interval always has a width."""
    return list(comparison["interval"]) == [0, 0]


def significance(comparison: Mapping[str, Any]) -> str:
    """Formats a comparison's corrected p-value, and whether it is resolved."""
    if proven(comparison):
        return MISSING
    text = p_value(comparison["p_adjusted"])
    return text if comparison["resolved"] else f"{text}, not resolved"


def p_value(value: float | None) -> str:
    """Formats a p-value: p = 0.012, p < 0.001, p > 0.99; – for None."""
    if value is None:
        return MISSING
    if value < 0.001:
        return "p < 0.001"
    return "p > 0.99" if value > 0.99 else f"p = {value:.2g}"


def percent(share: float) -> str:
    """Formats a share as 95 % or 99.9 %."""
    return f"{100 * share:g} %"


def series(values: Sequence[object]) -> str:
    """Joins values as "0, 1, 2"; several equal ones become "300 each"."""
    if len(values) > 1 and len(set(values)) == 1:
        return f"{values[0]} each"
    return ", ".join(map(str, values))
