"""Interventions: mates are set as planned, and their pull is detected if there is one."""

import numpy as np
import pytest

from pnoise_jax.studies.leak.checks import interventions, mate_groups
from pnoise_jax.studies.leak.checks.order_tests import among, exceeds

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 40))
X = np.eye(5)[LABELS] + np.random.default_rng(1).normal(0, 0.6, (200, 5))


def blanked(rows):
    return np.vstack([X, np.zeros(5)])[rows]


def pull_of(apply, seed=0):
    groups = mate_groups.pair_up(LABELS, X, 10, group_size=None, seed=seed)
    planned = interventions.choose_targets(groups, X, blank=True)
    logits_of = lambda batches: np.stack([apply(blanked(batch)) for batch in batches])  # noqa: E731
    outcome = interventions.intervene(planned, logits_of)
    return interventions.summarise([outcome], resamples=500, seed=0)


def test_groups_are_disjoint_and_of_one_class_each():
    groups = mate_groups.pair_up(LABELS, X, 10, group_size=None, seed=0)
    assert groups.members.shape[1] == 2
    assert len(groups.members) >= mate_groups.WANTED_PAIRS
    assert len(np.unique(groups.members)) == groups.members.size
    assert np.all(LABELS[groups.members] == groups.classes[:, :, None])
    assert np.all(groups.classes[:, 0] != groups.classes[:, 1])


def test_batches_hold_the_target_at_its_place_and_mates_of_the_class():
    groups = mate_groups.pair_up(LABELS, X, 10, group_size=None, seed=0)
    planned = interventions.choose_targets(groups, X, blank=True)
    assert set(planned.kinds) == set(interventions.TARGETS)
    for i, (batch, place) in enumerate(zip(planned.batches, planned.places, strict=True)):
        mates = np.delete(batch, place)
        assert np.all(LABELS[mates] == planned.classes[i])
        assert batch[place] not in mates
        partner = i ^ 1
        assert planned.batches[partner][planned.places[partner]] == batch[place]
        assert planned.others[i] == planned.classes[partner]
        if planned.kinds[i] == "blank":
            assert batch[place] == len(LABELS)
        if planned.kinds[i] == "image":
            assert LABELS[batch[place]] not in (planned.classes[i], planned.others[i])


def test_a_fixed_group_size_is_kept():
    assert mate_groups.pair_up(LABELS, X, 10, group_size=5, seed=0).members.shape[2] == 4
    assert mate_groups.pair_up(LABELS, X, 10, group_size=50, seed=0) is None
    assert mate_groups.pair_up(np.array([0, 1, 1]), X[:3], 10, group_size=None, seed=0) is not None


def test_mates_that_are_mixed_in_pull_towards_their_class():
    summary = pull_of(lambda b: 0.7 * b + 0.3 * b.mean(0))
    assert summary.direction(0.05) == 1
    for pull in summary.pulls.values():
        assert pull.p_toward < 0.01
        assert pull.p_away > 0.9
        assert pull.called > pull.called_other


def test_mates_that_are_subtracted_push_away():
    summary = pull_of(lambda b: b - 0.5 * b.mean(0))
    assert summary.direction(0.05) == -1


@pytest.mark.parametrize("seed", range(5))
def test_nothing_pulls_if_nothing_is_mixed(seed):
    summary = pull_of(lambda b: 3 * b, seed)
    assert summary.direction(0.05) == 0
    for pull in summary.pulls.values():
        assert pull.logit == pytest.approx(0, abs=1e-9)


def test_what_mates_share_apart_from_their_class_does_not_pull():
    """The brightness is averaged: mates matter, but their class does not."""
    directions = []
    for seed in range(40):
        brightness = np.append(np.random.default_rng(seed).normal(0, 2, 200), 0.0)
        groups = mate_groups.pair_up(LABELS, X, 10, group_size=None, seed=seed)
        planned = interventions.choose_targets(groups, X, blank=True)

        def logits_of(batches, brightness=brightness):
            pooled = brightness[batches].mean(axis=1)
            return blanked(batches) + pooled[:, None, None] * np.linspace(-1, 1, 5)

        outcome = interventions.intervene(planned, logits_of)
        directions.append(interventions.summarise([outcome], resamples=500, seed=0).direction(0.05))
    assert np.mean(np.abs(directions)) <= 0.2  # 5 % are expected in each direction


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite for some batches of one class"):
        pull_of(lambda b: b * np.nan)


def test_one_order_is_compared_with_random_ones():
    generator = np.random.default_rng(3)
    others = generator.normal(50, 1, 40)
    result = among(np.array([60.0]), others, least=0.1, confidence=0.95)
    assert result.below == 40
    assert result.p_value < 1e-6
    assert result.interval[0] > 6
    alike = [
        among(generator.normal(50, 1, 1), others, least=0.1, confidence=0.95) for _ in range(300)
    ]
    assert np.mean([test.p_value < 0.05 for test in alike]) < 0.1
    for test in alike:  # the interval and the p-value agree
        assert (test.interval[0] > 0 or test.interval[1] < 0) == (test.p_value < 0.05)


def test_equal_scores_of_all_orders_do_not_make_certainty():
    result = among(np.array([70.2]), np.full(40, 70.0), least=0.2, confidence=0.95)
    assert result.p_value > 0.01  # one example of 500 is no discovery
    assert exceeds(np.full(10, 70.0), np.full(10, 70.0), n=500) == pytest.approx(0.5)
    assert exceeds(np.full(10, 71.0), np.full(10, 70.0), n=500) < 1e-6


@pytest.mark.parametrize(("classes", "mates"), [(1, 2), (2, 3), (30, 4), (50, 9)])
def test_pairs_are_those_of_all_pairs_of_classes_sorted_by_confusion(classes, mates):
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, 1200)
    confused = np.triu(generator.poisson(0.1, (classes, classes)), 1)
    confused += confused.T

    draws = np.random.default_rng(5)
    groups = {}
    for c in np.unique(labels):
        members = draws.permutation(np.flatnonzero(labels == c))
        groups[c] = [members[i : i + mates] for i in range(0, len(members) - mates + 1, mates)]
    pairs = [(one, two) for one in groups for two in groups if one < two]
    draws.shuffle(pairs)
    pairs.sort(key=lambda pair: -confused[pair])
    expected, before, turn = [], -1, 0
    while len(expected) < mate_groups.MAX_PAIRS and (turn < 2 or len(expected) > before):
        before = len(expected)
        for one, two in pairs:
            if groups[one] and groups[two] and (turn or confused[one, two]):
                expected.append([groups[one].pop(), groups[two].pop()])
        turn += 1
    chosen = mate_groups._disjoint_pairs(labels, confused, mates, np.random.default_rng(5))
    assert np.array(chosen).tolist() == np.array(expected[: mate_groups.MAX_PAIRS]).tolist()
