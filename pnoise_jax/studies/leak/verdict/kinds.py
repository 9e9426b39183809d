"""The kinds of a verdict, which code can branch on, and how they follow from the evidence."""

import dataclasses
from typing import Any

from pnoise_jax.evaluation import Estimate
from pnoise_jax.studies.leak.checks.dependence import Dependence
from pnoise_jax.studies.leak.checks.interventions import Interventions
from pnoise_jax.studies.leak.checks.order_tests import OrderTest

# The most serious first, as in a verdict.
KINDS = {
    "leak": "the labels of batch mates are read, and class order or the given order benefits",
    "order_effect": (
        "the order of the test set moves the accuracy, and that is not shown to come from reading "
        "labels"
    ),
    "undecided": "predictions depend on the batch, and the data do not resolve how",
    "prior": "the batch reveals how frequent classes are, and no more about an example",
    "ceiling": "predictions depend on the batch, and the clean model leaves no room to tell how",
    "harm": "in random order, accuracy is lower than without noise",
    "honest_gain": "in random order, accuracy is higher than without noise",
    "independent": "in all that was tried, no prediction depended on another example",
    "no_effect": (
        "in random order, accuracy is the same as without noise, within the bound of equivalence"
    ),
}
FEW_ERRORS = 6  # clean errors; with fewer, no test can show what sorting by labels adds


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The evidence about one noise at one batch size.

    Attributes:
      name: name of the noise, in a sentence.
      batch_size: batch size of the protocols.
      n: number of examples.
      by_size: accuracy in random orders, percent, for each batch size that was audited.
      clean: accuracy without noise, percent, mean over seeds.
      clean_errors: number of examples that the clean model gets wrong, mean over seeds.
      majority: percent of the examples that belong to the most frequent class.
      dependence: results of the exact checks.
      class_order: class order with files permuted within classes, among random orders.
      file_order: class order with files in the data set's order, among orders with files permuted.
      given_order: the data set's own order, among random orders; None if it is class order.
      given_purity: in that order, the share of mates with an example's class, minus the share in
        random orders; 0 if chance explains the difference.
      own_predictions: sorted by the clean model's predictions, among random orders.
      p_labels: one-sided p-value of sorting by labels scoring no more than by own predictions.
      interventions: None if they could not be made.
      no_interventions: the reason, in words.
      honest: shuffled minus clean, in points.
      p_honest: its p-value, with Holm's correction for all noises and batch sizes.
      honest_balanced: the same difference with equal weight for all classes.
      prior_gap: `honest` minus `honest_balanced`.
    """

    name: str
    batch_size: int
    n: int
    by_size: dict[int, float]
    clean: float
    clean_errors: float
    majority: float
    dependence: Dependence
    class_order: OrderTest
    file_order: OrderTest
    given_order: OrderTest | None
    given_purity: float | None
    own_predictions: OrderTest
    p_labels: float
    interventions: Interventions | None
    no_interventions: str | None
    honest: Estimate
    p_honest: float
    honest_balanced: Estimate
    prior_gap: Estimate

    def follows_mates(self, level: float) -> int:
        """1 if predictions move towards their mates' class, -1 if away from it, else 0."""
        if self.interventions is None:
            return 0
        return self.interventions.direction(level)

    def labels_add(self, level: float) -> bool | None:
        """Whether sorting by labels scores more than by own predictions; None if none could."""
        return None if self.clean_errors < FEW_ERRORS else self.p_labels <= level


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer for one noise. ``str(verdict)`` is its text.

    Attributes:
      kinds: all kinds that hold, from `KINDS`, the most serious first.
      text: the same in sentences, with figures.
      evidence: the evidence for them, as JSON.
      batch_size: the batch size that the figures are for.
    """

    kinds: tuple[str, ...]
    text: str
    evidence: dict[str, Any]
    batch_size: int

    @property
    def kind(self) -> str:
        """The most serious of the kinds."""
        return self.kinds[0]

    @property
    def seriousness(self) -> int:
        """The place of `kind` in `KINDS`; smaller is more serious."""
        return list(KINDS).index(self.kind)

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Returns the verdict as it is in `audit.json`."""
        return {
            "kind": self.kind,
            "kinds": list(self.kinds),
            "text": self.text,
            "batch_size": self.batch_size,
            "evidence": self.evidence,
        }


def judge(evidence: Evidence, *, level: float, equivalence: float) -> tuple[str, ...]:
    """Returns the kinds that hold, the most serious first.

    Args:
      evidence: the evidence about one noise at one batch size.
      level: level of the tests.
      equivalence: points of top-1; an effect below it counts as none.
    """
    kinds = set()
    if evidence.dependence.independent:
        kinds.add("independent")
    else:
        kinds |= _of_the_order(evidence, level, equivalence)
    honest = evidence.honest.sign if evidence.p_honest <= level else 0
    if honest < 0:
        kinds.add("harm")
    elif honest > 0:
        kinds.add("prior" if reveals_frequencies(evidence) else "honest_gain")
    elif evidence.honest.within(equivalence):
        kinds.add("no_effect")
    if not evidence.dependence.deterministic:
        # All that it gains may be what it remembers of the audit's other orders.
        kinds -= {"ceiling", "honest_gain", "no_effect"}
        kinds |= set() if "leak" in kinds else {"undecided"}
    return tuple(kind for kind in KINDS if kind in kinds)


def leaks(evidence: Evidence, level: float) -> bool:
    """Whether class order or the given order gains, through the labels of batch mates."""
    pull = evidence.follows_mates(level)
    in_class_order = (
        evidence.class_order.sign(level) > 0
        and pull > 0
        and evidence.labels_add(level) is not False
    )
    return in_class_order or leaks_as_given(evidence, level)


def leaks_as_given(evidence: Evidence, level: float) -> bool:
    """Whether the given order gains through mates that have, or lack, an example's label."""
    if evidence.given_order is None or evidence.given_purity is None:
        return False
    if evidence.given_order.sign(level) <= 0:
        return False
    return evidence.follows_mates(level) * evidence.given_purity > 0


def reveals_frequencies(evidence: Evidence) -> bool:
    """Whether only frequent classes gain."""
    depends = not evidence.dependence.independent
    return depends and evidence.honest_balanced.sign <= 0 and evidence.prior_gap.sign > 0


def needs_no_labels(evidence: Evidence, level: float) -> bool:
    """Whether sorting by own predictions gains nearly as much as sorting by labels."""
    by_prediction, by_labels = evidence.own_predictions, evidence.class_order
    return (
        evidence.labels_add(level) is False
        and by_prediction.sign(level) > 0
        and by_prediction.difference > 0.8 * by_labels.difference
    )


def order_effects(evidence: Evidence, level: float, equivalence: float) -> dict[str, OrderTest]:
    """Returns the orders that move the accuracy by something other than reading labels.

    The keys are "classes", "files" and "given"; effects smaller than the bound are left out. Most
    tests use half the level, because no intervention confirms these effects, and because which
    examples happen to share a class moves the accuracy a little even if nothing else does.
    """
    strict = level / 2
    by_class = evidence.class_order.sign(level)
    effects = {}
    if by_class > 0 and needs_no_labels(evidence, level):
        effects["classes"] = evidence.class_order
    if evidence.class_order.sign(strict) < 0:
        effects["classes"] = evidence.class_order
    if evidence.file_order.sign(strict) != 0:
        effects["files"] = evidence.file_order
    given_order = evidence.given_order
    unexplained = by_class <= 0 and not leaks_as_given(evidence, level)
    if given_order is not None and given_order.sign(strict) != 0 and unexplained:
        effects["given"] = given_order
    return {name: test for name, test in effects.items() if not test.within(equivalence)}


def _of_the_order(evidence: Evidence, level: float, equivalence: float) -> set[str]:
    """Kinds of a function that depends on the batch, or that is not deterministic."""
    kinds = set()
    if leaks(evidence, level):
        kinds.add("leak")
    if order_effects(evidence, level, equivalence):
        kinds.add("order_effect")
    if kinds or _order_is_worth_nothing(evidence, level, equivalence):
        return kinds
    no_room = evidence.clean_errors < FEW_ERRORS or 100 - evidence.clean < equivalence
    gains = evidence.class_order.sign(level) > 0
    return {"ceiling" if no_room and not gains else "undecided"}


def _order_is_worth_nothing(evidence: Evidence, level: float, equivalence: float) -> bool:
    """Whether the effect of this test set's order is shown to be smaller than the bound.

    This also requires that no label of a mate pulls, and that a pull could have been seen.
    """
    tests = [evidence.class_order, evidence.file_order, evidence.given_order]
    small = all(test.within(equivalence) or test.flat for test in tests if test is not None)
    tried = evidence.interventions is not None and evidence.interventions.resolves(level)
    tried &= evidence.clean_errors >= FEW_ERRORS
    return small and tried and evidence.follows_mates(level) == 0
