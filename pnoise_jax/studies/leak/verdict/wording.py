"""The text of a verdict: sentences that follow from its kinds, with figures."""

from collections.abc import Sequence
from typing import Any

from pnoise_jax.counting import counted
from pnoise_jax.evaluation import Estimate
from pnoise_jax.studies.leak.checks.order_tests import OrderTest
from pnoise_jax.studies.leak.verdict import unresolved
from pnoise_jax.studies.leak.verdict.kinds import (
    FEW_ERRORS,
    Evidence,
    leaks_as_given,
    order_effects,
)
from pnoise_jax.studies.reporting.tables import points, signed


def text(
    evidence: Evidence,
    kinds: tuple[str, ...],
    *,
    level: float,
    equivalence: float,
    independent_at: Sequence[int],
) -> str:
    """Returns a verdict in sentences: the answer up to the first colon, then the evidence for it.

    Args:
      evidence: the evidence at one batch size.
      kinds: the kinds that hold at that size.
      level, equivalence: as in `judge`.
      independent_at: the batch sizes at which no prediction depends on another example.
    """
    lead = _LEADS[kinds[0]](evidence)
    sentences = [_accuracies(evidence)]
    if "leak" in kinds:
        sentences.append(_leak(evidence, level))
    if "order_effect" in kinds:
        sentences += _order_effects(evidence, level, equivalence)
    if "leak" not in kinds:
        sentences.append(_dependence(evidence, independent_at))
    if "undecided" in kinds:
        sentences.append(unresolved.undecided(evidence, level, equivalence))
    if "ceiling" in kinds:
        sentences.append(unresolved.ceiling(evidence))
    sentences.append(_honest(evidence, kinds, equivalence))
    sentence = f"{evidence.name} {lead}: {sentences[0]}"
    return " ".join([sentence[0].upper() + sentence[1:], *(part for part in sentences[1:] if part)])


def metric(result: dict[str, Any] | None) -> str:
    """Returns a further sentence if the user's metric depends on how the examples are batched."""
    if result is None or not result["depends_on_batching"]:
        return ""
    low, high = result["range_of_fixed_predictions"]
    return (
        f" The metric {result['name']} depends on how examples are batched, whatever the "
        f"predictions: for the same ones it ranges from {low:.1f} to {high:.1f}."
    )


_LEADS = {
    "leak": lambda evidence: "reads the labels of batch mates",
    "order_effect": lambda evidence: "makes the accuracy depend on the order of the test set",
    "prior": lambda evidence: "gains only what the class frequencies in a batch tell",
    "undecided": lambda evidence: (
        "makes predictions depend on the batch, and these data do not show how"
        if evidence.dependence.deterministic
        else "gives other predictions for the same batch, so nothing can be checked exactly"
    ),
    "ceiling": lambda evidence: (
        "makes predictions depend on the batch, and the clean accuracy leaves no room to see how"
    ),
    "harm": lambda evidence: "lowers the accuracy",
    "honest_gain": lambda evidence: "raises the accuracy, whatever the order of the test set",
    "independent": lambda evidence: "leaves every prediction independent of the other examples",
    "no_effect": lambda evidence: "changes the accuracy by less than the bound of equivalence",
}


def _accuracies(evidence: Evidence) -> str:
    if evidence.dependence.independent:
        return (
            f"top-1 is {evidence.class_order.mean:.1f} % in every order, against "
            f"{evidence.clean:.1f} % clean."
        )
    order = evidence.class_order
    return (
        f"in batches of {evidence.batch_size}, top-1 is {evidence.file_order.value:.1f} % in class "
        f"order and {order.mean:.1f} % in random orders (lowest to highest of {order.orders}: "
        f"{order.lowest:.1f} to {order.highest:.1f}), against {evidence.clean:.1f} % clean."
    )


def _leak(evidence: Evidence, level: float) -> str:
    order, purity = evidence.given_order, evidence.given_purity
    is_as_given = leaks_as_given(evidence, level) and evidence.class_order.sign(level) <= 0
    if is_as_given and order is not None and purity is not None:
        mates = "have" if purity > 0 else "lack"
        sentence = (
            f"The data set's own order scores {order.value:.1f} %, {signed(order.difference)} "
            f"points over a random order, {_rank(order)}: there, batch mates {mates} an example's "
            "label more often than by chance."
        )
        return f"{sentence} {_interventions(evidence)}"
    order = evidence.class_order
    sentence = (
        f"With the files of each class permuted, class order scores {order.value:.1f} %, "
        f"{signed(order.difference)} points over a random order, {_rank(order)}"
    )
    if evidence.clean_errors >= FEW_ERRORS:
        sentence += (
            "; sorting by the model's own clean predictions, which needs no label, scores "
            f"{evidence.own_predictions.value:.1f} %"
        )
    return f"{sentence}. {_interventions(evidence)}"


def _rank(order: OrderTest) -> str:
    if order.below == order.orders:
        return f"above all {order.orders} random orders"
    return f"above {order.below} of {order.orders} random orders"


def _interventions(evidence: Evidence) -> str:
    """Describes the results for the targets that a reader can picture."""
    assert evidence.interventions is not None, "there are no interventions to describe"
    clauses = [
        f"{_TARGETS[kind]} is called that class {pull.called:.0f} % of the time "
        f"({pull.called_other:.0f} % where the mates are of the other class)"
        for kind, pull in evidence.interventions.pulls.items()
        if kind in _TARGETS
    ]
    return f"Among mates of one class, {', and '.join(clauses)}."


_TARGETS = {
    "contested": "an example torn between two classes",
    "blank": "a blank example",
}


def _order_effects(evidence: Evidence, level: float, equivalence: float) -> list[str]:
    effects = order_effects(evidence, level, equivalence)
    sentences = []
    if "files" in effects:
        test = effects["files"]
        why = ": consecutive files share something other than their label"
        if not evidence.dependence.deterministic:
            why = ", or the function changed from call to call"
        sentences.append(
            f"With the classes in order, the order of the files within each class changes the "
            f"accuracy by {signed(test.difference)} points ({test.value:.1f} % against "
            f"{test.mean:.1f} % with files permuted){why}."
        )
    if "classes" in effects:
        test = effects["classes"]
        why = "the function does worse when a whole batch is of one class"
        if test.difference > 0:
            why = (
                f"no label is needed, since sorting by the model's own predictions gives "
                f"{evidence.own_predictions.value:.1f} %"
            )
        sentences.append(
            "With the files of each class permuted, class order changes the accuracy by "
            f"{signed(test.difference)} points: {why}."
        )
    if "given" in effects:
        test = effects["given"]
        why = "and not by the labels of batch mates"
        if not evidence.follows_mates(level):
            why = "and no intervention shows whether that is by the labels of batch mates"
        sentences.append(
            f"The data set's own order scores {test.value:.1f} %, {signed(test.difference)} "
            f"points from random orders, {why}."
        )
    return sentences


def _dependence(evidence: Evidence, sizes: Sequence[int]) -> str:
    checked = evidence.dependence
    if checked.differs_by_size and len(evidence.by_size) == 1:
        return "An example is also predicted differently when it is alone."
    if checked.differs_by_size:
        by_size = ", ".join(
            f"{top1:.1f} % in batches of {size}" for size, top1 in evidence.by_size.items()
        )
        return (
            "Predictions also depend on how many examples a batch has: top-1 in random orders is "
            f"{by_size}."
        )
    if not checked.independent:
        return ""
    return (
        f"This was checked, not estimated, in batches of {_listed(sizes)}: each of "
        f"{checked.examples} examples has the same prediction in all of {checked.orders} orders, "
        f"and replacing mates in {counted(checked.batches, 'batch', 'batches')} changed no logit. "
        "So nothing leaked in these batches, and no order mattered."
    )


def _honest(evidence: Evidence, kinds: tuple[str, ...], equivalence: float) -> str:
    low, high = evidence.honest.interval
    interval = f"({signed(low)} to {signed(high)})"
    effect = f"{signed(evidence.honest.value)} {interval}"
    where = "Used honestly" if evidence.dependence.independent else "Used honestly, in random order"
    if evidence.dependence.differs_by_size:
        where += f" and in batches of {evidence.batch_size}"
    if "prior" in kinds:
        return (
            f"{where}, accuracy changes by {effect} points, and balanced accuracy by "
            f"{_with_interval(evidence.honest_balanced)}: {evidence.majority:.0f} % of the "
            f"examples "
            "belong to one class, and that is what the batch reveals."
        )
    if not evidence.dependence.deterministic:
        return (
            f"In random order, accuracy changes by {effect} points; if the function remembers "
            "earlier batches, this includes what it kept from the other orders of the audit."
        )
    if "harm" in kinds:
        return f"{where}, it costs {-evidence.honest.value:.1f} points {interval}."
    if "honest_gain" in kinds:
        return f"{where}, it gains {evidence.honest.value:.1f} points {interval}."
    if "no_effect" in kinds:
        return f"{where}, it changes accuracy by {effect}, less than {points(equivalence)}."
    return f"{where}, its effect is not resolved: {effect} points."


def _with_interval(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{signed(estimate.value)} ({signed(low)} to {signed(high)})"


def _listed(sizes: Sequence[int]) -> str:
    *others, last = map(str, sizes)
    return f"{', '.join(others)} and {last}" if others else last
