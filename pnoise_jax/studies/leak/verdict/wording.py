"""What a verdict says: sentences that follow from its kinds, with their figures."""

from collections.abc import Sequence
from typing import Any

from pnoise_jax.evaluation import Estimate
from pnoise_jax.studies.leak.checks.order_tests import OrderTest
from pnoise_jax.studies.leak.verdict.kinds import (
    FEW_ERRORS,
    Evidence,
    leaks_as_given,
    order_effects,
)


def text(
    found: Evidence,
    kinds: tuple[str, ...],
    *,
    level: float,
    equivalence: float,
    independent_at: Sequence[int],
) -> str:
    """A verdict in sentences: the answer up to the first colon, then what it rests on.

    Args:
      found: at one batch size.
      kinds: that hold there.
      level, equivalence: as `judge` takes them.
      independent_at: the batch sizes at which no prediction depends on another example.
    """
    lead = _LEADS[kinds[0]](found)
    told = [_accuracies(found)]
    if "leak" in kinds:
        told.append(_leak(found, level))
    if "order_effect" in kinds:
        told += _order_effects(found, level, equivalence)
    if "leak" not in kinds:
        told.append(_dependence(found, independent_at))
    if "undecided" in kinds:
        told.append(_undecided(found, level, equivalence))
    if "ceiling" in kinds:
        told.append(_ceiling(found))
    told.append(_honest(found, kinds, equivalence))
    sentence = f"{found.name} {lead}: {told[0]}"
    return " ".join([sentence[0].upper() + sentence[1:], *(part for part in told[1:] if part)])


def metric(found: dict[str, Any] | None) -> str:
    """A further sentence where the user's metric depends on how examples are batched."""
    if found is None or not found["depends_on_batching"]:
        return ""
    low, high = found["range_of_fixed_predictions"]
    return (
        f" The metric {found['name']} depends on how examples are batched, whatever the "
        f"predictions: of the same ones it makes {low:.1f} to {high:.1f} (lowest to highest)."
    )


_LEADS = {
    "leak": lambda found: "reads the labels of batch mates",
    "order_effect": lambda found: "makes the accuracy depend on the order of the test set",
    "prior": lambda found: "gains only what the class frequencies in a batch tell",
    "undecided": lambda found: (
        "makes predictions depend on the batch, and these data do not show how"
        if found.dependence.deterministic
        else "gives other predictions for the same batch, so nothing can be checked exactly"
    ),
    "ceiling": lambda found: (
        "makes predictions depend on the batch, and the clean accuracy leaves no room to see how"
    ),
    "harm": lambda found: "lowers the accuracy",
    "honest_gain": lambda found: "raises the accuracy, whatever the order of the test set",
    "independent": lambda found: "makes no prediction depend on another example",
    "no_effect": lambda found: "changes the accuracy by less than the bound of equivalence",
}


def _accuracies(found: Evidence) -> str:
    if found.dependence.independent:
        return (
            f"top-1 is {found.class_order.mean:.1f} % in any order, against {found.clean:.1f} % "
            "clean."
        )
    order = found.class_order
    return (
        f"in batches of {found.batch_size}, top-1 is {found.file_order.value:.1f} % in class order "
        f"and {order.mean:.1f} % in random orders (lowest to highest of {order.orders}: "
        f"{order.lowest:.1f} to {order.highest:.1f}), against {found.clean:.1f} % clean."
    )


def _leak(found: Evidence, level: float) -> str:
    if leaks_as_given(found, level) and found.class_order.sign(level) <= 0:
        order = found.given_order
        mates = "have" if found.given_purity > 0 else "lack"
        told = (
            f"The data set's own order scores {order.value:.1f} %, {_signed(order.difference)} "
            f"points over a random order, {_rank(order)}: there, batch mates {mates} an example's "
            "label more often than by chance."
        )
        return f"{told} {_interventions(found)}"
    order = found.class_order
    told = (
        f"With the files of each class permuted, class order scores {order.value:.1f} %, "
        f"{_signed(order.difference)} points over a random order, {_rank(order)}"
    )
    if found.clean_errors >= FEW_ERRORS:
        told += (
            "; sorting by the model's own clean predictions, which needs no label, scores "
            f"{found.own_predictions.value:.1f} %"
        )
    return f"{told}. {_interventions(found)}"


def _rank(order: OrderTest) -> str:
    if order.below == order.orders:
        return f"above all {order.orders} random orders"
    return f"above {order.below} of {order.orders} random orders"


def _interventions(found: Evidence) -> str:
    """What became of the targets that a reader can picture."""
    told = [
        f"{_TARGETS[kind]} is called that class {pull.called:.0f} % of the time "
        f"({pull.called_other:.0f} % where the mates are of the other class)"
        for kind, pull in found.interventions.pulls.items()
        if kind in _TARGETS
    ]
    return f"Among mates of one class, {', and '.join(told)}."


_TARGETS = {
    "contested": "an example torn between two classes",
    "blank": "a blank example",
}


def _order_effects(found: Evidence, level: float, equivalence: float) -> list[str]:
    effects = order_effects(found, level, equivalence)
    told = []
    if "files" in effects:
        test = effects["files"]
        told.append(
            f"With the classes in order, the order of the files within each class changes the "
            f"accuracy by {_signed(test.difference)} points ({test.value:.1f} % against "
            f"{test.mean:.1f} % with files permuted): consecutive files share something other than "
            "their label."
        )
    if "classes" in effects:
        test = effects["classes"]
        why = "the function does worse where all of a batch is of one class"
        if test.difference > 0:
            why = (
                f"no label is needed, since sorting by the model's own predictions gives "
                f"{found.own_predictions.value:.1f} %"
            )
        told.append(
            "With the files of each class permuted, class order changes the accuracy by "
            f"{_signed(test.difference)} points: {why}."
        )
    if "given" in effects:
        test = effects["given"]
        told.append(
            f"The data set's own order scores {test.value:.1f} %, {_signed(test.difference)} "
            "points from random orders, and not by the labels of batch mates."
        )
    return told


def _dependence(found: Evidence, sizes: Sequence[int]) -> str:
    checked = found.dependence
    if checked.differs_by_size and len(found.by_size) == 1:
        return "An example is also predicted differently when it is alone."
    if checked.differs_by_size:
        by_size = ", ".join(
            f"{top1:.1f} % in batches of {size}" for size, top1 in found.by_size.items()
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
        f"and replacing the mates in {checked.batches} batches changed no logit. In such batches "
        "nothing can leak, and no order can matter."
    )


def _undecided(found: Evidence, level: float, equivalence: float) -> str:
    told = []
    order = found.class_order
    gains = order.sign(level) > 0
    if gains:
        told.append(
            f"With the files of each class permuted, class order is worth "
            f"{_signed(order.difference)} points over a random one, and sorting by the model's own "
            f"clean predictions {_signed(found.own_predictions.difference)}."
        )
    if not found.dependence.deterministic:
        told.append(
            "Calls with the same batch differ: the function is random, or it remembers earlier "
            "batches. Fix the random key, so that an example draws the same noise in any batch, or "
            "reset what it remembers, and audit again."
        )
    elif gains:
        told.append(_no_pull(found))
    else:
        told.append(_what_would_resolve(found, level, equivalence))
    return " ".join(told)


def _no_pull(found: Evidence) -> str:
    """Why a gain in class order is not called a leak."""
    if found.interventions is None:
        return f"The interventions could not be made: {found.no_interventions}."
    told = "No intervention shows that the labels of batch mates are read."
    mates = found.interventions.mates
    if mates + 1 < found.batch_size:
        told += (
            f" They used batches of {mates + 1}, not {found.batch_size}, since the classes are "
            "small."
        )
    return f"{told} More examples of each class would sharpen them."


def _what_would_resolve(found: Evidence, level: float, equivalence: float) -> str:
    """Where no order stands out, and yet none is shown to be worth nothing."""
    tests = {
        "class order, with files permuted": found.class_order,
        "the order of files": found.file_order,
    }
    if found.given_order is not None:
        tests["the data set's own order"] = found.given_order
    name, widest = max(tests.items(), key=lambda item: max(map(abs, item[1].interval)))
    limit = max(map(abs, widest.interval))
    if limit >= equivalence:
        low, high = widest.interval
        more = found.n * (limit / equivalence) ** 2
        return (
            f"No order stands out. The least certain is {name}: {_signed(widest.difference)} "
            f"points ({_signed(low)} to {_signed(high)}); resolving {_points(equivalence)} would "
            f"take about {_round_up(more):,} examples like these."
        )
    if found.follows_mates(level):
        return (
            "The labels of batch mates move the logits, yet no order moves the accuracy by "
            f"{_points(equivalence)} here: audit larger batches, or harder examples."
        )
    return _no_pull(found)


def _round_up(number: float) -> int:
    digits = max(0, len(str(int(number))) - 2)
    return -int(-number // 10**digits) * 10**digits


def _ceiling(found: Evidence) -> str:
    if found.clean_errors < FEW_ERRORS:
        return (
            f"The clean model gets {found.clean_errors:.0f} examples wrong, too few to tell what "
            f"an order adds: audit harder or more examples, so that it gets {FEW_ERRORS} wrong at "
            "least."
        )
    return (
        f"The clean accuracy is {found.clean:.1f} %, so an order can add "
        f"{100 - found.clean:.1f} points at most: audit harder examples."
    )


def _honest(found: Evidence, kinds: tuple[str, ...], equivalence: float) -> str:
    low, high = found.honest.interval
    interval = f"({_signed(low)} to {_signed(high)})"
    effect = f"{_signed(found.honest.value)} {interval}"
    where = "Used honestly" if found.dependence.independent else "Used honestly, in random order"
    if "prior" in kinds:
        return (
            f"{where}, accuracy changes by {effect} points, and balanced accuracy by "
            f"{_with_interval(found.honest_balanced)}: {found.majority:.0f} % of the examples are "
            "of one class, and that is what the batch reveals."
        )
    if "harm" in kinds:
        return f"{where}, it costs {-found.honest.value:.1f} points {interval}."
    if "honest_gain" in kinds:
        return f"{where}, it gains {found.honest.value:.1f} points {interval}."
    if "no_effect" in kinds:
        return f"{where}, it changes accuracy by {effect}, less than {_points(equivalence)}."
    return f"{where}, its effect is not resolved: {effect} points."


def _with_interval(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{_signed(estimate.value)} ({_signed(low)} to {_signed(high)})"


def _listed(sizes: Sequence[int]) -> str:
    *others, last = map(str, sizes)
    return f"{', '.join(others)} and {last}" if others else last


def _points(number: float) -> str:
    return "1 point" if number == 1 else f"{number:g} points"


def _signed(points: float) -> str:
    shown = f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if float(f"{points:.1f}") == 0 else shown
