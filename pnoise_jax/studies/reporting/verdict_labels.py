"""How the kinds of verdict are shown: a label, its meaning, and its look.

Captions and titles depend on these kinds, so that no page contradicts its verdict.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pnoise_jax.studies import decisions


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of verdict.

    Attributes:
      label: the text on its chip.
      meaning: the sentence in the legend.
      look: "found" (something is wrong with the number), "open" (not resolved) or "plain".
      protocols: how it shows in the figure of the protocols.
    """

    label: str
    meaning: str
    look: str
    protocols: str


# By their names in audit.json, the most serious first.
KINDS = {
    "leak": Kind(
        "leak",
        "Predictions read the labels of batch mates, and an order of the test set gains accuracy "
        "from it. A deployed classifier does not have these labels.",
        "found",
        "A square (class-sorted) to the right of its dot is the leak.",
    ),
    "order_effect": Kind(
        "order effect",
        "The order of the test set moves the accuracy, and that is not shown to come from the "
        "labels of batch mates.",
        "found",
        "The distance from a dot (shuffled) to its square (class-sorted) is the effect of the "
        "order.",
    ),
    "undecided": Kind(
        "undecided",
        "Predictions depend on the batch, or differ from call to call, and these data do not show "
        "how. This is not an all-clear.",
        "open",
        "These data do not show why a square (class-sorted) lies where it does.",
    ),
    "prior": Kind(
        "prior",
        "Accuracy rises because a batch reveals which classes are frequent. It reveals nothing "
        "more about an example, and balanced accuracy does not rise.",
        "found",
        "A dot (shuffled) to the right of the line is a gain that balanced accuracy does not "
        "share.",
    ),
    "ceiling": Kind(
        "ceiling",
        "Predictions depend on the batch, and the clean model makes too few errors to tell how. "
        "This is not an all-clear.",
        "open",
        "The clean accuracy leaves no room to the right, where a gain would show.",
    ),
    "harm": Kind(
        "harm",
        "In random order, accuracy is lower than without noise.",
        "plain",
        "A dot (shuffled) to the left of the line is accuracy lost in use.",
    ),
    "honest_gain": Kind(
        "honest gain",
        "In random order, accuracy is higher than without noise.",
        "plain",
        "A dot (shuffled) to the right of the line is accuracy gained in use.",
    ),
    "independent": Kind(
        "independent",
        "In all that was tried, no prediction depended on another example of its batch. This was "
        "checked exactly.",
        "plain",
        "Dot and square agree exactly, since no prediction depended on another example.",
    ),
    "no_effect": Kind(
        "no effect",
        "In random order, accuracy equals that without noise within the bound of equivalence.",
        "plain",
        "A dot (shuffled) on the line means no effect in use, within the bound of equivalence.",
    ),
}


def held(audit: Mapping[str, Any]) -> dict[str, Kind]:
    """Returns the kinds that occur in the audit, the most serious first."""
    names = {name for finding in audit["findings"] for name in finding["verdict"]["kinds"]}
    return {name: kind for name, kind in KINDS.items() if name in names}


def headline_finding(audit: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the finding about the noise of the audit's verdict."""
    wanted = audit["headline"]["noise_id"]
    return next(f for f in audit["findings"] if f["noise_id"] == wanted)


def order_matters(verdict: Mapping[str, Any]) -> bool:
    """Returns whether the verdict says that the order of the test set changes the accuracy."""
    return not {"leak", "order_effect"}.isdisjoint(verdict["kinds"])


def independent(verdict: Mapping[str, Any]) -> bool:
    """Returns whether no prediction depends on another example."""
    return "independent" in verdict["kinds"]


def class_order(audit: Mapping[str, Any]) -> int:
    """Returns 1 or -1 if the verdict has class order above or below random orders, else 0."""
    verdict = headline_finding(audit)["verdict"]
    return decisions.class_order_sign(verdict, 1 - audit["confidence"], audit["equivalence"])


def pull(audit: Mapping[str, Any]) -> int:
    """Returns 1 if the verdict has predictions move towards their mates' class, -1 away, else 0."""
    interventions = headline_finding(audit)["verdict"]["evidence"]["interventions"]
    if interventions is None:
        return 0
    return decisions.pull_direction(interventions["pulls"], 1 - audit["confidence"])
