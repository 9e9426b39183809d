"""Captions of tables and figures. The kinds of the verdict determine what they say."""

from collections.abc import Mapping
from typing import Any

from pnoise_jax.studies import decisions
from pnoise_jax.studies.reporting import tables
from pnoise_jax.studies.reporting import verdict_labels as kinds


def interval(audit: Mapping[str, Any]) -> str:
    """Returns what brackets mean, for the heading of a column."""
    return f"{tables.percent(audit['confidence'])} interval"


def mean_over(audit: Mapping[str, Any]) -> str:
    """Returns ", mean over 5 seeds", or "" for a single seed."""
    seeds = len(audit["seeds"])
    return f", mean over {seeds} seeds" if seeds > 1 else ""


def figure_title(audit: Mapping[str, Any], name: str) -> str:
    """Returns the title of a figure."""
    verdict = kinds.headline_finding(audit)["verdict"]
    if name == "purity":
        title = "Accuracy by the share of batch mates with the same label"
        if kinds.order_matters(verdict) and kinds.class_order(audit):
            title = "Sorting alone moves the accuracy"
        elif kinds.independent(verdict):
            title = "Sorting does not change the accuracy"
        return _of_the_noise(audit, title)
    if name == "orders":
        title = "Class order does not stand out from random orders"
        if kinds.independent(verdict):
            title = "All orders agree exactly"
        elif sign := kinds.class_order(audit):
            title = f"Class order scores {'above' if sign > 0 else 'below'} random orders"
        elif decisions.is_within(verdict["evidence"]["class_order"], audit["equivalence"]):
            bound = tables.points(audit["equivalence"])
            title = f"Class order scores within {bound} of random orders"
        return _of_the_noise(audit, title)
    if name == "interventions":
        title = "No pull towards the class of the mates is resolved"
        if kinds.independent(verdict):
            title = "The mates change nothing"
        elif sign := kinds.pull(audit):
            title = f"Logits move {'towards' if sign > 0 else 'away from'} the class of the mates"
        return _of_the_noise(audit, title)
    return {"protocols": "The three protocols.", "per_class": "Accuracy by class."}[name]


def figure_caption(audit: Mapping[str, Any], name: str) -> str:
    """Returns the caption of a figure, which says how to read it."""
    return {
        "protocols": _protocols_figure,
        "purity": _purity_figure,
        "orders": _orders_figure,
        "interventions": _interventions_figure,
        "per_class": lambda audit: (
            f"For the noise and the batch size of the verdict{mean_over(audit)}."
        ),
    }[name](audit)


def protocols_table(audit: Mapping[str, Any]) -> str:
    """Returns the caption of the table of protocols."""
    return (
        "All rows score the same examples. Shuffled: mean over "
        f"{audit['shuffled_orders']} random orders; its mates, bits and vote are from the "
        "first one. Class-sorted: class by class, in the data set’s order within each class. "
        "Balanced: the mean of the accuracies per class. Batch vote: a reference without noise, "
        "explained above."
    )


def comparisons_table(audit: Mapping[str, Any]) -> str:
    """Returns the caption of the table of differences."""
    return (
        "Paired by example and seed. p-values are corrected by Holm’s method, for each difference "
        "over all noises and batch sizes; the intervals are not corrected. “Not resolved”: the "
        f"interval includes 0, or p is above {1 - audit['confidence']:.2g}. “Exactly”: checked, "
        "not estimated."
    )


def orders_table(audit: Mapping[str, Any]) -> str:
    """Returns the caption of the table of orders."""
    return (
        "Top-1 in percent, for the same examples in several orders of each kind; standard "
        "deviation, lowest and highest are over these orders. “Above”: how many of the "
        f"{audit['shuffled_orders']} random orders score less than this mean{mean_over(audit)}."
    )


def interventions_table(audit: Mapping[str, Any]) -> str:
    """Returns the caption of the table of interventions."""
    return (
        "Each target is placed among mates of one class, then among mates of another; nothing else "
        "changes. If the mates had no influence, it would be assigned to both classes equally "
        "often. Logit shift: how far the logit of the mates’ class rises above the other, in "
        "standard deviations of their difference; mean over pairs of groups of mates."
    )


def check_table(audit: Mapping[str, Any]) -> str:
    """Returns the caption of the table of the exact check."""
    caption = (
        "Two checks without statistics. In some batches, about half of the examples are replaced "
        "in each of several calls, and the logits of the others are compared; each mate of an "
        "example is replaced in some call in which the example stays. And the predictions in all "
        "orders that were scored are compared with those in the first random order. “Examples "
        "predicted differently” have another prediction in some order of one kind; the number is "
        "for the kind with the most."
    )
    if len(audit["seeds"]) > 1:
        caption += " Batches and examples are counted for each seed and added up."
    return caption


def meter_table(audit: Mapping[str, Any]) -> str:
    """Returns the caption of the table of the meter."""
    return (
        "“Printed” is what the paper’s published program would print as its accuracy: after each "
        "batch it computes the accuracy so far, and it reports the mean of these numbers, so early "
        "batches weigh most. In class order, early batches contain the first classes. The clean "
        "rows differ only in the order in which the same predictions are read."
    )


def classes_table(audit: Mapping[str, Any]) -> str:
    """Returns the caption of the table of classes."""
    shown, count = len(tables.most_changed(audit)), len(audit["per_class"])
    wanted = audit["headline"]
    which = f"The {shown} of {count} classes that change"
    if shown == count:
        which = "All classes, first those that change"
    return (
        f"{which} most from clean to class-sorted; {wanted['noise_id']}, batches of "
        f"{wanted['batch_size']}. Top-1 in percent{mean_over(audit)}."
    )


def dependence(check: Mapping[str, Any]) -> str:
    """Returns the result of the exact check of one noise."""
    if check["independent"]:
        return "independent"
    return "depends on the batch" if check["deterministic"] else "differs from call to call"


def _protocols_figure(audit: Mapping[str, Any]) -> str:
    verdict = kinds.headline_finding(audit)["verdict"]
    sign = kinds.class_order(audit)
    names = list(verdict["kinds"])
    if "order_effect" in names and (not {"leak", "undecided"}.isdisjoint(names) or not sign):
        names.remove("order_effect")  # squares show the leak, or nothing
    sentences = [kinds.KINDS[name].protocols for name in names]
    if "leak" in names and sign <= 0:
        sentences[names.index("leak")] = "The leak is in the data set’s own order, shown below."
    about = "For the noise of the verdict: " if len(audit["findings"]) > 1 else ""
    return (
        "Vertical line and band: clean accuracy and its interval. Dots, squares and bars: accuracy "
        "with noise and its interval; its numbers are on the right. Diamond: batch vote in class "
        f"order, without noise. {about}{' '.join(sentences)}"
    )


def _purity_figure(audit: Mapping[str, Any]) -> str:
    caption = (
        "The same examples and the same noise, in batches from fully mixed (left) to fully sorted "
        f"(right). Bands are {tables.percent(audit['confidence'])} intervals. The clean accuracy "
        "does not depend on the batches."
    )
    names = kinds.headline_finding(audit)["verdict"]["kinds"]
    if "undecided" in names:
        caption += " Where this comes from is undecided: a slope alone does not show a leak."
    if "ceiling" in names:
        caption += " A flat line at the top proves nothing: there is no room above it."
    return caption


def _orders_figure(audit: Mapping[str, Any]) -> str:
    has_cross = any(row["order"] == "as given" for row in audit["orders"])
    cross = "Cross: the data set’s own order, as the examples were given. " if has_cross else ""
    return (
        f"Dots: the accuracies in {audit['shuffled_orders']} random orders of the same examples; "
        "bar: from the lowest to the highest. Squares: class order, with files in the data set’s "
        "order (filled) and permuted within each class (hollow). Triangles: sorted by the clean "
        f"model’s own predictions, which needs no label. {cross}Vertical line: clean accuracy, "
        f"which no order changes.{' Axes differ.' if len(audit['findings']) > 1 else ''}"
    )


def _interventions_figure(audit: Mapping[str, Any]) -> str:
    return (
        "How often an example among mates of one class is assigned to that class (squares), and "
        "how often to the other class of the pair (circles), in percent of batches. On the right: "
        "the logit shift, in standard deviations. Each noise is shown at the batch size of its "
        "verdict."
    )


def _of_the_noise(audit: Mapping[str, Any], title: str) -> str:
    """Completes a title about the verdict's noise, naming the noise if there are others."""
    if len(audit["findings"]) == 1:
        return f"{title}."
    return f"{title}, with {audit['headline']['noise_id']}."
