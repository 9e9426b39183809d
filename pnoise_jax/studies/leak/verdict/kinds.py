"""What an audit concludes, in kinds that code can branch on, and how each follows from evidence."""

import dataclasses
from typing import Any

from pnoise_jax.evaluation import Estimate
from pnoise_jax.studies.leak.checks.dependence import Dependence
from pnoise_jax.studies.leak.checks.interventions import Interventions
from pnoise_jax.studies.leak.checks.order_tests import OrderTest

# The most serious first, which is the order of the kinds in a verdict.
KINDS = {
    "leak": "the labels of batch mates are read, and accuracy in class order benefits",
    "order_effect": "the order of the test set moves the accuracy, but not because labels are read",
    "undecided": "predictions depend on the batch, and the data do not resolve how",
    "prior": "the batch reveals how frequent classes are, and no more about an example",
    "ceiling": "predictions depend on the batch, and the clean model leaves no room to tell how",
    "harm": "in random order, accuracy is lower than without noise",
    "honest_gain": "in random order, accuracy is higher than without noise",
    "independent": "no prediction depends on another example",
    "no_effect": (
        "in random order, accuracy is the same as without noise, within the bound of equivalence"
    ),
}
FEW_ERRORS = 6  # of the clean model: from fewer no test can tell what sorting by labels adds


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was found about one noise at one batch size.

    Attributes:
      name: of the noise, in a sentence.
      batch_size: of the protocols.
      n: how many examples there are.
      by_size: accuracy in random orders by batch size, percent, of all sizes audited.
      clean: accuracy without noise, percent, mean over seeds.
      clean_errors: examples that the clean model gets wrong, mean over seeds.
      majority: percent of the examples that are of the most frequent class.
      dependence: what the exact checks found.
      class_order: classes in order, files permuted within them, among random orders.
      file_order: classes in order and files as they are, among orders with files permuted.
      given_order: the data set's own order among random ones; None where it means nothing.
      given_purity: in that order, the share of mates of an example's class minus what chance gives.
      own_predictions: sorted by the clean model's predictions, among random orders.
      p_labels: one-sided, that sorting by labels scores no more than by own predictions.
      interventions: None where they could not be made.
      no_interventions: why, in words.
      honest: shuffled minus clean, in points.
      p_honest: its p-value, corrected by Holm for all noises and batch sizes.
      honest_balanced: the same with classes weighted alike.
      prior_gap: the former minus the latter.
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
        """1 where predictions move towards their mates' class, -1 where away from it, else 0."""
        if self.interventions is None:
            return 0
        return self.interventions.direction(level)

    def labels_add(self, level: float) -> bool | None:
        """Whether sorting by labels scores more than by own predictions; None where none can."""
        return None if self.clean_errors < FEW_ERRORS else self.p_labels <= level


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer for one noise. ``str(verdict)`` is its text.

    Attributes:
      kinds: all that hold, of `KINDS`, the most serious first.
      text: the same in sentences with their figures.
      evidence: what they follow from, as JSON.
      batch_size: that the figures are of.
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
        """Smaller is more serious."""
        return list(KINDS).index(self.kind)

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """As `audit.json` has it."""
        return {
            "kind": self.kind,
            "kinds": list(self.kinds),
            "text": self.text,
            "batch_size": self.batch_size,
            "evidence": self.evidence,
        }


def judge(evidence: Evidence, *, level: float, equivalence: float) -> tuple[str, ...]:
    """The kinds that hold, the most serious first.

    Args:
      evidence: about one noise at one batch size.
      level: of the tests.
      equivalence: points of top-1 below which an effect is called none.
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
    return tuple(kind for kind in KINDS if kind in kinds)


def leaks(evidence: Evidence, level: float) -> bool:
    """Whether class order gains, and does so by the labels of batch mates."""
    pull = evidence.follows_mates(level)
    in_class_order = (
        evidence.class_order.sign(level) > 0
        and pull > 0
        and evidence.labels_add(level) is not False
    )
    return in_class_order or leaks_as_given(evidence, level)


def leaks_as_given(evidence: Evidence, level: float) -> bool:
    """Whether the data set's own order gains, by mates that have an example's label, or lack it."""
    if evidence.given_order is None or evidence.given_purity is None:
        return False
    if evidence.given_order.sign(level) <= 0:
        return False
    return evidence.follows_mates(level) * evidence.given_purity > 0


def reveals_frequencies(evidence: Evidence) -> bool:
    """Whether a gain is that of the frequent classes alone."""
    depends = not evidence.dependence.independent
    return depends and evidence.honest_balanced.sign <= 0 and evidence.prior_gap.sign > 0


def needs_no_labels(evidence: Evidence, level: float) -> bool:
    """Whether sorting by own predictions gains nearly what sorting by labels does."""
    by_prediction, by_labels = evidence.own_predictions, evidence.class_order
    return (
        evidence.labels_add(level) is False
        and by_prediction.sign(level) > 0
        and by_prediction.difference > 0.8 * by_labels.difference
    )


def order_effects(evidence: Evidence, level: float, equivalence: float) -> dict[str, OrderTest]:
    """The orders that move the accuracy by something other than labels that are read.

    By "classes", "files" or "given"; effects that are smaller than the bound are left out. Half the
    level is asked for: no intervention confirms these, and which examples happen to share a class
    moves them a little where nothing else does.
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
    """What holds of a function that depends on the batch, or that is not deterministic."""
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
    """Whether the order of this test set is shown to matter by less than the bound.

    Only where no label of a mate pulls, and where something would be seen if it did.
    """
    tests = [evidence.class_order, evidence.file_order, evidence.given_order]
    small = all(test.within(equivalence) or test.flat for test in tests if test is not None)
    tried = evidence.interventions is not None and evidence.interventions.resolves(level)
    tried &= evidence.clean_errors >= FEW_ERRORS
    return small and tried and evidence.follows_mates(level) == 0
