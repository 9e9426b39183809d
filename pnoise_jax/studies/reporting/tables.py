"""The numbers of an audit as people read them: arranged by noise and batch size, and formatted."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "–"


@dataclasses.dataclass(frozen=True)
class Siblings:
    """The rows of one noise and batch size that belong side by side; never one without the others.

    Attributes:
      noise_id: of the two noisy rows.
      batch_size: of all three.
      clean: the clean row in shuffled order.
      shuffled: the noisy row in shuffled order.
      class_sorted: the noisy row in class order.
    """

    noise_id: str
    batch_size: int
    clean: Mapping[str, Any]
    shuffled: Mapping[str, Any]
    class_sorted: Mapping[str, Any]

    @property
    def protocols(self) -> tuple[Mapping[str, Any], ...]:
        """The rows in the order in which they are shown."""
        return self.clean, self.shuffled, self.class_sorted


def by_noise(audit: Mapping[str, Any]) -> dict[str, list[Siblings]]:
    """The rows of an audit by ``noise_id`` and batch size, in the order of the audit."""
    clean = {row["batch_size"]: row for row in audit["rows"] if _is(row, False, "shuffled")}
    sorted_rows = {
        (row["noise_id"], row["batch_size"]): row
        for row in audit["rows"]
        if _is(row, True, "class_sorted")
    }
    groups: dict[str, list[Siblings]] = {}
    for row in audit["rows"]:
        if _is(row, True, "shuffled"):
            noise_id, size = row["noise_id"], row["batch_size"]
            found = Siblings(noise_id, size, clean[size], row, sorted_rows[noise_id, size])
            groups.setdefault(noise_id, []).append(found)
    return groups


def headline(audit: Mapping[str, Any]) -> Siblings:
    """The rows that the verdict is about."""
    wanted = audit["headline"]
    group = by_noise(audit)[wanted["noise_id"]]
    return next(found for found in group if found.batch_size == wanted["batch_size"])


def most_changed(audit: Mapping[str, Any], count: int = 8) -> list[Mapping[str, Any]]:
    """The classes whose accuracy changes most from clean to noisy in class order."""
    classes = audit["per_class"]
    return sorted(classes, key=lambda c: (-abs(c["class_sorted"] - c["clean"]), c["class"]))[:count]


def number(value: float | None, decimals: int = 1) -> str:
    """76.1, −51.0 (with a minus sign); – where there is none."""
    if value is None:
        return MISSING
    rounded = round(value, decimals) + 0.0  # + 0.0: never a minus before a zero
    return f"{rounded:.{decimals}f}".replace("-", "−")


def signed(value: float) -> str:
    """+22.7, −51.0, 0.0: a difference in points."""
    text = number(value)
    return f"+{text}" if round(value, 1) > 0 else text


def with_interval(row: Mapping[str, Any]) -> str:
    """98.8 (97.4–100.0): top-1 and its interval, in percent."""
    low, high = row["interval"]
    return f"{number(row['top1'])} ({number(low)}–{number(high)})"


def difference(comparison: Mapping[str, Any]) -> str:
    """+22.7 (+20.1 to +25.2): points of top-1 and their interval."""
    low, high = comparison["interval"]
    return f"{signed(comparison['difference'])} ({signed(low)} to {signed(high)})"


def p_value(value: float | None) -> str:
    """p = 0.012, p < 0.001."""
    if value is None:
        return MISSING
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def series(values: Sequence[object]) -> str:
    """0, 1, 2; or what they all are, where they are many and all the same."""
    if len(values) > 1 and len(set(values)) == 1:
        return f"{values[0]} each"
    return ", ".join(map(str, values))


def _is(row: Mapping[str, Any], noise: bool, order: str) -> bool:
    return row["noise"] is noise and row["order"] == order
