"""Intervals: their width where theory gives it, their coverage, and paired comparisons."""

import numpy as np
import pytest

from pnoise_jax.evaluation import Hits, accuracy, difference

OPTIONS = {"confidence": 0.95, "resamples": 2000, "seed": 0}


@pytest.fixture
def draw():
    """Draws hits; anew in every test, whatever ran before it."""
    generator = np.random.default_rng(0)
    return lambda seeds, n, p: generator.random((seeds, n)) < p


def width(estimate):
    return estimate.interval[1] - estimate.interval[0]


def test_one_seed_gives_the_binomial_interval(draw):
    found = accuracy(Hits(draw(1, 4000, 0.7)), **OPTIONS)
    assert found.interval[0] < found.value < found.interval[1]
    assert width(found) == pytest.approx(2 * 1.96 * 100 * np.sqrt(0.7 * 0.3 / 4000), rel=0.1)


def test_batches_are_drawn_whole(draw):
    """Ten copies of a tenth of the examples know no more than that tenth."""
    few = draw(1, 400, 0.7)
    copies, batches = np.repeat(few, 10, axis=1), np.repeat(np.arange(400), 10)
    alone, together = accuracy(Hits(copies), **OPTIONS), accuracy(Hits(copies, batches), **OPTIONS)
    assert width(together) == pytest.approx(np.sqrt(10) * width(alone), rel=0.1)
    assert width(together) == pytest.approx(width(accuracy(Hits(few), **OPTIONS)), rel=0.1)


def test_a_short_last_batch_counts_for_what_it_holds():
    batches = np.array([0, 0, 0, 0, 1])
    found = accuracy(Hits(np.array([[True, True, True, True, False]]), batches), **OPTIONS)
    assert found.value == 80
    assert found.interval == (0, 100)  # of two batches nothing is known, and 100 % is the most


def test_seeds_that_differ_widen_the_interval(draw):
    accuracies = np.array([0.5, 0.6, 0.7, 0.8, 0.9])[:, None]
    found = accuracy(Hits(draw(5, 10000, accuracies)), **OPTIONS)
    half = 2.78 * 100 * np.std(accuracies, ddof=1) / np.sqrt(5)  # Student's t, 4 degrees of freedom
    assert found.value == pytest.approx(70, abs=1)
    assert width(found) == pytest.approx(2 * half, rel=0.1)
    alone = accuracy(Hits(draw(5, 10000, accuracies)), **OPTIONS, over_seeds=False)
    assert width(alone) < width(found) / 10


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("over_seeds", [True, False])
def test_intervals_cover(seeds, over_seeds):
    """Models scatter about 70 %, on test sets whose examples are hard or easy for all of them."""
    generator = np.random.default_rng(seeds)
    inside, trials = 0, 300
    for _ in range(trials):
        shared = generator.random(400)  # of each example, for all seeds
        mine = generator.random((seeds, 400))
        difficulty = np.where(generator.random((seeds, 400)) < 0.8, shared, mine)
        p = generator.normal(0.7, 0.02 if over_seeds and seeds > 1 else 0, (seeds, 1))
        found = accuracy(
            Hits(difficulty < p), confidence=0.95, resamples=200, seed=0, over_seeds=over_seeds
        )
        inside += found.interval[0] <= 70 <= found.interval[1]
    assert inside / trials > 0.915


def test_pairing_removes_what_is_common(draw):
    first = draw(3, 2000, 0.7)
    second = first.copy()
    second[:, :40] = True  # better on 40 examples at most, otherwise the same
    paired = difference(Hits(second), Hits(first), **OPTIONS)
    apart = width(accuracy(Hits(first), **OPTIONS))
    assert paired.value == pytest.approx(100 * (second.mean() - first.mean()))
    assert width(paired) < apart / 2
    assert paired.sign == 1
    assert paired.p_value < 0.05


def test_the_seeds_are_paired(draw):
    """Models of very different accuracy, each one point better: the difference is sure."""
    p = np.array([0.5, 0.7, 0.9])[:, None]
    first = draw(3, 5000, p)
    second = first | draw(3, 5000, 0.1)
    batches = np.arange(5000) // 10
    found = difference(Hits(second, batches), Hits(first, batches[::-1].copy()), **OPTIONS)
    assert width(found) < width(accuracy(Hits(first, batches), **OPTIONS)) / 5


def test_no_difference_is_no_effect(draw):
    same = draw(3, 1000, 0.7)
    found = difference(Hits(same), Hits(same), **OPTIONS)
    assert (found.value, found.interval, found.p_value, found.sign) == (0, (0, 0), 1, 0)
    other = difference(Hits(draw(1, 3000, 0.7)), Hits(draw(1, 3000, 0.7)), **OPTIONS)
    assert other.sign == 0
    assert other.p_value > 0.05


def test_batches_of_two_orders_are_drawn_apart(draw):
    correct = np.repeat(draw(1, 200, 0.5), 10, axis=1)
    one, two = np.arange(2000) // 10, np.random.default_rng(1).permutation(2000) // 10
    same = difference(Hits(correct, one), Hits(correct, one), **OPTIONS)
    apart = difference(Hits(correct, one), Hits(correct, two), **OPTIONS)
    assert width(same) == 0
    assert width(apart) > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": 1.0}, r"confidence=1\.0: give a number between 0 and 1"),
        ({"resamples": 10}, r"resamples=10: give at least 100"),
    ],
)
def test_bad_options_are_named(changes, message, draw):
    with pytest.raises(ValueError, match=message):
        accuracy(Hits(draw(1, 10, 0.5)), **OPTIONS | changes)


def test_shapes_that_do_not_fit_are_named(draw):
    with pytest.raises(ValueError, match=r"expected \(seeds, n\)"):
        Hits(np.ones(5, bool))
    with pytest.raises(ValueError, match=r"batches have shape \(4,\); expected \(5,\)"):
        Hits(np.ones((1, 5), bool), np.zeros(4, int))
    with pytest.raises(ValueError, match="1 batch says nothing about chance"):
        Hits(np.ones((1, 5), bool), np.zeros(5, int))
    with pytest.raises(ValueError, match="the same seeds and examples"):
        difference(Hits(draw(2, 5, 0.5)), Hits(draw(1, 5, 0.5)), **OPTIONS)
