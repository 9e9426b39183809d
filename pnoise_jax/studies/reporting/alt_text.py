"""The numbers of the figures as text, for readers who cannot see them."""

import statistics
from collections.abc import Mapping
from typing import Any

from pnoise_jax.studies.reporting import tables


def alternative(audit: Mapping[str, Any], name: str) -> str:
    """Returns the alternative text of a figure of the page."""
    return {
        "protocols": _protocols,
        "orders": _orders,
        "interventions": _interventions,
        "purity": _purity,
        "per_class": _per_class,
    }[name](audit)


def _protocols(audit: Mapping[str, Any]) -> str:
    parts = []
    for noise_id, group in tables.by_noise(audit).items():
        for siblings in group:
            clean, shuffled, in_order = map(tables.with_interval, siblings.protocols)
            vote = tables.number(siblings.class_sorted["batch_vote_top1"])
            parts.append(
                f"{noise_id}, batch {siblings.batch_size}: clean {clean}, shuffled {shuffled}, "
                f"class-sorted {in_order}, batch vote {vote}."
            )
    return "Top-1 in percent. " + " ".join(parts)


def _orders(audit: Mapping[str, Any]) -> str:
    parts = []
    for (noise_id, size), rows in tables.by_cell(audit["orders"]).items():
        accuracies = (
            f"{row['words']} {tables.number(row['top1'])} (lowest to highest "
            f"{tables.number(row['lowest'])} to {tables.number(row['highest'])})"
            for row in rows
        )
        parts.append(f"{noise_id}, batch {size}: {'; '.join(accuracies)}.")
    return "Mean top-1 in percent. " + " ".join(parts)


def _interventions(audit: Mapping[str, Any]) -> str:
    parts = [
        f"{row['noise_id']}, batch {row['batch_size']}, {row['words']}: called the class of its "
        f"mates {tables.number(row['called'])}, called the other class "
        f"{tables.number(row['called_other'])}, logit shift {tables.signed(row['logit'], 2)}."
        for row in audit["interventions"]
    ]
    return "Percent of batches. " + " ".join(parts)


def _purity(audit: Mapping[str, Any]) -> str:
    parts = [
        f"{point['noise_id']}, batch {point['batch_size']}, "
        f"{tables.number(100 * point['purity'])} % of mates with the same label: "
        f"{tables.with_interval(point)}, batch vote {tables.number(point['batch_vote_top1'])}."
        for point in audit["purity"]
        if point["purity"] is not None
    ]
    return "Top-1 in percent. " + " ".join(parts)


def _per_class(audit: Mapping[str, Any]) -> str:
    classes = audit["per_class"]
    fields = {"clean": "clean", "shuffled": "shuffled", "class_sorted": "class-sorted"}
    if len(classes) > 20:
        quartiles = {k: statistics.quantiles([c[k] for c in classes], n=4) for k in fields}
        parts = (f"{fields[k]} {', '.join(map(tables.number, q))}" for k, q in quartiles.items())
        return f"Top-1 in percent, quartiles over {len(classes)} classes: {'; '.join(parts)}."
    parts = (
        f"class {c['name']}: "
        + ", ".join(f"{name} {tables.number(c[key])}" for key, name in fields.items())
        for c in classes
    )
    return f"Top-1 in percent. {'; '.join(parts)}."
