"""The numbers of an audit as people read them: arranged by noise and batch size, and formatted."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MISSING = "–"


@dataclasses.dataclass(frozen=True)
class Siblings:
    """The rows of one noise and batch size that belong side by side; never one without the others.

    Attributes:
      noise_id: of the two noisy rows.
      batch_size: of all three.
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
    """The rows of an audit by ``noise_id`` and batch size, in the order of the audit."""
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
    """The rows that the verdict is about."""
    wanted = audit["headline"]
    group = by_noise(audit)[wanted["noise_id"]]
    return next(siblings for siblings in group if siblings.batch_size == wanted["batch_size"])


def by_cell(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """Rows by ``noise_id`` and batch size, in their order."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["noise_id"], row["batch_size"]), []).append(row)
    return groups


def most_changed(audit: Mapping[str, Any], count: int = 8) -> list[Mapping[str, Any]]:
    """The classes whose accuracy changes most from clean to noisy in class order."""
    classes = audit["per_class"]
    return sorted(classes, key=lambda c: (-abs(c["class_sorted"] - c["clean"]), c["class"]))[:count]


def unbalanced(audit: Mapping[str, Any]) -> bool:
    """Whether the largest class has half as many examples again as the smallest, or more."""
    counts = [c["n"] for c in audit["per_class"]]
    return bool(counts) and max(counts) >= 1.5 * min(counts)


def number(value: float | None, decimals: int = 1) -> str:
    """76.1, −51.0 (with a minus sign); – where there is none."""
    if value is None:
        return MISSING
    rounded = round(value, decimals) + 0.0  # + 0.0: never a minus before a zero
    return f"{rounded:.{decimals}f}".replace("-", "−")


def small(value: float) -> str:
    """4.3e−06, 0.52: a number of any size, in two digits."""
    return f"{value:.2g}".replace("-", "−")


def signed(value: float, decimals: int = 1) -> str:
    """+22.7, −51.0, 0.0: a difference."""
    text = number(value, decimals)
    return f"+{text}" if round(value, decimals) > 0 else text


def with_interval(row: Mapping[str, Any]) -> str:
    """98.8 (97.4 to 100.0): top-1 and its interval, in percent."""
    low, high = row["interval"]
    return f"{number(row['top1'])} ({number(low)} to {number(high)})"


def difference(comparison: Mapping[str, Any]) -> str:
    """+22.7 (+20.1 to +25.2): points of top-1 and their interval; "0.0, exactly" where proven."""
    if proven(comparison):
        return "0.0, exactly"
    low, high = comparison["interval"]
    return f"{signed(comparison['difference'])} ({signed(low)} to {signed(high)})"


def proven(comparison: Mapping[str, Any]) -> bool:
    """Whether a difference is known to be 0: an estimate's interval always has a width."""
    return list(comparison["interval"]) == [0, 0]


def significance(comparison: Mapping[str, Any]) -> str:
    """A comparison's corrected p-value, and whether it is resolved."""
    if proven(comparison):
        return MISSING
    text = p_value(comparison["p_adjusted"])
    return text if comparison["resolved"] else f"{text}, not resolved"


def p_value(value: float | None) -> str:
    """p = 0.012, p < 0.001, p > 0.99."""
    if value is None:
        return MISSING
    if value < 0.001:
        return "p < 0.001"
    return "p > 0.99" if value > 0.99 else f"p = {value:.2g}"


def percent(share: float) -> str:
    """95 %, 99.9 %, of a share."""
    return f"{100 * share:g} %"


def series(values: Sequence[object]) -> str:
    """0, 1, 2; or what they all are, where they are many and all the same."""
    if len(values) > 1 and len(set(values)) == 1:
        return f"{values[0]} each"
    return ", ".join(map(str, values))
