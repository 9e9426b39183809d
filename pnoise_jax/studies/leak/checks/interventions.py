"""Interventions: the audit chooses an example's batch mates and observes the prediction.

Orders alone cannot show why a prediction depends on its batch. Here the mates of one example are
all of one class, then all of another, and nothing else changes. If the prediction follows the class
of the mates, the mates' labels are what is read.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy

from pnoise_jax import evaluation
from pnoise_jax.studies import decisions
from pnoise_jax.studies.leak.checks.mate_groups import Groups

WANTED_BATCHES = 256  # for each kind of target except the blank one

TARGETS = {
    "contested": "an example for which the clean model finds both classes likely, among mates of "
    "one of them",
    "image": "an example of a third class among mates of one class",
    "blank": "a blank example among mates of one class",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """Batches of one target and mates of one class; each target has two consecutive batches.

    Attributes:
      batches: (m, b) int, indices of examples; the blank example is n.
      places: (m,) int, the target's position in its batch.
      classes: (m,) int, the class of the mates.
      others: (m,) int, the other class of the pair: that of the mates in the target's other batch.
      pairs: (m,) int, the number of the pair.
      kinds: (m,) str, the kind of target, one of `TARGETS`.
    """

    batches: np.ndarray
    places: np.ndarray
    classes: np.ndarray
    others: np.ndarray
    pairs: np.ndarray
    kinds: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """How one model predicted the targets.

    Attributes:
      planned: the batches.
      moved: (m,), the logit of the mates' class minus the logit of the other class, in standard
        deviations of this difference.
      predicted: (m,) int, the predicted classes.
    """

    planned: Planned
    moved: np.ndarray
    predicted: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pull:
    """How far one kind of target follows the class of its mates.

    Attributes:
      called: percent of batches in which the target was predicted as the class of its mates.
      called_other: percent in which it was predicted as the other class of the pair, which none of
        its mates has. If the mates have no influence, it equals `called`.
      logit: how far the mates' class rises above the other class, in standard deviations of their
        difference; mean over pairs.
      p_toward: p-value of the hypothesis that the prediction does not move towards the mates'
        class.
      p_away: p-value of the hypothesis that it does not move away from that class.
      batches: number of batches tried, for each seed.
    """

    called: float
    called_other: float
    logit: float
    p_toward: float
    p_away: float
    batches: int


@dataclasses.dataclass(frozen=True)
class Interventions:
    """The results of the interventions, over all seeds.

    Attributes:
      mates: number of mates of a target; fewer than in a protocol's batch if classes are small.
      pairs: number of pairs of disjoint groups of mates.
      pulls: the pull on each kind of target.
    """

    mates: int
    pairs: int
    pulls: dict[str, Pull]

    def resolves(self, level: float) -> bool:
        """Whether a pull could be found: few pairs too often agree by chance."""
        return bool(self.pulls) and 0.5**self.pairs <= level / (2 * len(self.pulls))

    def direction(self, level: float) -> int:
        """1 if predictions move towards their mates' class, -1 if away from it, else 0.

        The kinds of target are tested in the order of `TARGETS`; see `pull_direction`.
        """
        return decisions.pull_direction({k: vars(pull) for k, pull in self.pulls.items()}, level)


def choose_targets(groups: Groups, clean: np.ndarray, *, blank: bool) -> Planned:
    """Chooses the batches for one model.

    Args:
      groups: groups of mates.
      clean: (n, classes), the model's clean logits.
      blank: whether there is a blank example, with index n.
    """
    generator = np.random.default_rng([groups.seed, 3])
    total = evaluation.log_sum_exp(clean)
    count = int(np.clip(WANTED_BATCHES // (2 * len(groups.members)), 1, 16))
    rows = []
    for number, (members, (one, two)) in enumerate(
        zip(groups.members, groups.classes, strict=True)
    ):
        free = np.ones(len(groups.labels), bool)
        free[members] = False
        third = np.flatnonzero(free & (groups.labels != one) & (groups.labels != two))
        both = np.where(free, np.minimum(clean[:, one], clean[:, two]) - total, -np.inf)
        chosen = {
            "contested": np.argsort(-both, kind="stable")[: min(count, int(free.sum()))],
            "image": generator.choice(third, min(count, len(third)), replace=False),
            "blank": [len(groups.labels)] if blank else [],
        }
        rows += [(t, number, kind) for kind, targets in chosen.items() for t in targets]
    return _fill(groups, rows, generator)


def _fill(groups: Groups, rows: Sequence[tuple], generator: np.random.Generator) -> Planned:
    """Makes two batches for each row (target, pair, kind), with the target at the same place."""
    targets, pairs, kinds = map(np.array, zip(*rows, strict=True))
    places = np.repeat(generator.integers(0, groups.members.shape[2] + 1, len(rows)), 2)
    mates = groups.members[pairs].reshape(len(places), -1)
    batches = [
        np.insert(of_target, place, target)
        for of_target, place, target in zip(mates, places, np.repeat(targets, 2), strict=True)
    ]
    return Planned(
        batches=np.stack(batches),
        places=places,
        classes=groups.classes[pairs].ravel(),
        others=groups.classes[pairs, ::-1].ravel(),
        pairs=np.repeat(pairs, 2),
        kinds=np.repeat(kinds, 2),
    )


def intervene(planned: Planned, logits_of: Callable[[np.ndarray], np.ndarray]) -> Found:
    """Predicts the targets with one model.

    Args:
      planned: the batches to try.
      logits_of: a function from the indices (m, b) of batches to logits (m, b, classes).

    Raises:
      ValueError: logits are not finite, or the function fails on such batches.
    """
    at = np.arange(len(planned.batches))
    logits = logits_of(planned.batches)[at, planned.places].astype(np.float64)
    if not np.isfinite(logits).all():
        raise ValueError("the logits are not finite for some batches of one class")
    moved = logits[at, planned.classes] - logits[at, planned.others]
    return Found(planned, moved / (moved.std() or 1.0), logits.argmax(axis=1))


def summarise(outcomes: Sequence[Found], *, resamples: int, seed: int) -> Interventions:
    """Combines the interventions of all models."""
    planned = outcomes[0].planned
    kinds = [kind for kind in TARGETS if np.any(planned.kinds == kind)]
    return Interventions(
        mates=planned.batches.shape[1] - 1,
        pairs=len(np.unique(planned.pairs)),
        pulls={kind: _pull(outcomes, kind, resamples, seed) for kind in kinds},
    )


def _pull(outcomes: Sequence[Found], kind: str, resamples: int, seed: int) -> Pull:
    rows = outcomes[0].planned.kinds == kind
    pairs = outcomes[0].planned.pairs[rows]
    moved = np.mean([of_model.moved[rows] for of_model in outcomes], axis=0)
    # The preference of the target itself cancels between its two batches.
    numbers, number = np.unique(pairs, return_inverse=True)
    by_pair = np.bincount(number, weights=moved) / np.bincount(number, minlength=len(numbers))
    called, called_other = (
        100 * float(np.mean([f.predicted[rows] == classes(f)[rows] for f in outcomes]))
        for classes in (lambda f: f.planned.classes, lambda f: f.planned.others)
    )
    return Pull(
        called=called,
        called_other=called_other,
        logit=float(by_pair.mean()),
        p_toward=_sign_flip(by_pair, resamples, seed),
        p_away=_sign_flip(-by_pair, resamples, seed),
        batches=int(rows.sum()),
    )


def _sign_flip(values: np.ndarray, resamples: int, seed: int) -> float:
    """Returns the one-sided p-value of the mean, if the values are symmetric about 0."""
    if len(values) < 2 or np.abs(values).max() < 1e-9:
        return 1.0
    test = scipy.stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)
