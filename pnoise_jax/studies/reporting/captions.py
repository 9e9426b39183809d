"""What the audit's page says in words: how to read it, captions, alternatives, the method."""

import statistics
from collections.abc import Mapping
from typing import Any

from pnoise_jax.studies.reporting import tables

READING = """<dl>
<dt>Same weights</dt>
<dd>All rows evaluate the same trained weights on the same test examples. Only two things change:
whether noise acts at inference, and which examples share a batch. A difference between rows is
therefore not something the model has learned.</dd>
<dt>Why mixing leaks</dt>
<dd>Some noises, such as the paper’s linear transforms, add to each example a share of the others in
its batch, its batch mates. The prediction for one example then depends on who its mates are.</dd>
<dt>Shuffled, class-sorted</dt>
<dd>Shuffled batches are random draws, as in use. Class-sorted batches follow the order of the
classes, as a folder of images is read: the mates mostly share the example’s label. No deployed
classifier knows that. What class-sorted gains over shuffled is read from the order of the test
set.</dd>
<dt>Batch vote</dt>
<dd>No noise at all: the clean predictions of a batch are averaged, and all its examples are given
that one answer. Where this does as well as the noise in class order, and both agree, the noise is
a vote.</dd>
<dt>Honest effect</dt>
<dd>Noisy shuffled against clean. It is the only comparison here that says what the noise would do
in use.</dd>
</dl>"""

TITLES = {
    "protocols": "The three protocols.",
    "purity": "Sorting alone moves the accuracy.",
    "per_class": "Accuracy by class.",
}


def caption(audit: Mapping[str, Any], name: str) -> str:
    """What a figure shows, below it."""
    if name == "per_class":
        return f"For the noise and the batch size of the verdict{mean_over(audit)}."
    if name == "purity":
        return (
            "The same weights and the same noise, in batches from fully mixed (left) to fully "
            "sorted (right). Bands are intervals. The clean model’s accuracy does not depend on "
            "its batches."
        )
    votes = [row["batch_vote_top1"] for row in audit["rows"]]
    diamond = "Diamond: batch vote in class order. " if any(v is not None for v in votes) else ""
    return (
        "Vertical line and band: clean accuracy and its interval. Dots, squares and bars: "
        "accuracy with noise and its interval; its numbers are on the right. "
        f"{diamond}A dot (shuffled) left of the line is harm in use; a square (class-sorted) right "
        "of its dot is the leak."
    )


def mean_over(audit: Mapping[str, Any]) -> str:
    """ ", mean over 5 seeds"; nothing where there is one."""
    seeds = len(audit["seeds"])
    return f", mean over {seeds} seeds" if seeds > 1 else ""


def subject(audit: Mapping[str, Any]) -> str:
    """One line: what was audited, on what."""
    seeds = len(audit["seeds"])
    split = f", {audit['split']} split" if audit["split"] else ""
    parts = (
        audit["model"],
        f"{audit['dataset']}{split}: {audit['n']} examples of {audit['num_classes']} classes",
        f"{seeds} seed{'' if seeds == 1 else 's'}",
        str(audit["date"]).partition("T")[0],
    )
    return " · ".join(part for part in parts if part)


def alternative(audit: Mapping[str, Any], name: str) -> str:
    """The numbers of a figure as text, for those who do not see it."""
    return {"protocols": _protocols, "purity": _purity, "per_class": _per_class}[name](audit)


def method(audit: Mapping[str, Any]) -> dict[str, str]:
    """How the numbers came to be, by topic."""
    over = audit["interval_over"]
    intervals = (
        f"At {100 * audit['confidence']:g} %, over {over}. Accuracies: Clopper–Pearson at the "
        "effective number of examples. Differences: paired by example and seed, Student’s t; their "
        "p-values are corrected by Holm for all comparisons."
    )
    if over == "examples":
        intervals += " No seeds are drawn: the intervals do not cover other training runs."
    told = {"Intervals": intervals}
    if audit["clean_check"]:
        check = audit["clean_check"]
        told["Clean check"] = (
            f"{check['examples']} examples were given to the clean model in other batches: the "
            f"logits differed by at most {check['largest_logit_difference']:.1g}."
        )
    told["Seeds"] = tables.series(audit["seeds"])
    if audit.get("notes"):
        told["Weights"] = "; ".join([audit["weights"], *audit["notes"]])
    if any(audit["steps"] or ()):
        told["Training steps"] = tables.series(audit["steps"])
    seconds = audit["seconds"]
    told["Time"] = ", ".join(f"{part} {tables.number(took)} s" for part, took in seconds.items())
    if audit["units"]:
        told["Units"] = "; ".join(f"{name}: {unit}" for name, unit in audit["units"].items())
    told["The numbers"] = "audit.csv and audit.json, beside this page, hold them unrounded."
    return told


def versions(audit: Mapping[str, Any]) -> dict[str, str]:
    """When, with what, and on what it ran."""
    fields = {"Date": "date", "JAX": "jax", "Device": "device", "Audit format": "version"}
    return {name: str(audit[key]) for name, key in fields.items() if audit[key] is not None}


def _protocols(audit: Mapping[str, Any]) -> str:
    parts = []
    for noise_id, group in tables.by_noise(audit).items():
        for found in group:
            clean, shuffled, in_order = map(tables.with_interval, found.protocols)
            vote = found.class_sorted["batch_vote_top1"]
            voted = "" if vote is None else f", batch vote {tables.number(vote)}"
            parts.append(
                f"{noise_id}, batch {found.batch_size}: clean {clean}, shuffled {shuffled}, "
                f"class-sorted {in_order}{voted}."
            )
    return "Top-1 in percent. " + " ".join(parts)


def _purity(audit: Mapping[str, Any]) -> str:
    parts = [
        f"{point['noise_id']}, batch {point['batch_size']}, "
        f"{tables.number(100 * point['purity'])} % of mates with the same label: "
        f"{tables.with_interval(point)}, batch vote {tables.number(point['batch_vote_top1'])}."
        for point in audit["purity"]
    ]
    return "Top-1 in percent. " + " ".join(parts)


def _per_class(audit: Mapping[str, Any]) -> str:
    classes = audit["per_class"]
    fields = {"clean": "clean", "shuffled": "shuffled", "class_sorted": "class-sorted"}
    if len(classes) > 20:
        quartiles = {k: statistics.quantiles([c[k] for c in classes], n=4) for k in fields}
        told = (f"{fields[k]} {', '.join(map(tables.number, q))}" for k, q in quartiles.items())
        return f"Top-1 in percent, quartiles over {len(classes)} classes: {'; '.join(told)}."
    told = (
        f"class {c['class']}: "
        + ", ".join(f"{name} {tables.number(c[key])}" for key, name in fields.items())
        for c in classes
    )
    return f"Top-1 in percent. {'; '.join(told)}."
