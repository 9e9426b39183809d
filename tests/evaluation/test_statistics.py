"""Intervals: their width where theory gives it, their coverage, and paired comparisons."""

import numpy as np
import pytest
from scipy import stats

from pnoise_jax.evaluation import (
    Hits,
    accuracy,
    adjust_p_values,
    balanced,
    difference,
    mean_change,
    proportion,
    student,
)

OPTIONS = {"confidence": 0.95}


@pytest.fixture
def draw():
    """Draws hits that do not depend on the tests before."""
    generator = np.random.default_rng(0)
    return lambda seeds, n, p: generator.random((seeds, n)) < p


def width(estimate):
    return estimate.interval[1] - estimate.interval[0]


def test_one_seed_gives_the_binomial_interval(draw):
    estimate = accuracy(Hits(draw(1, 4000, 0.7)), **OPTIONS)
    assert estimate.interval[0] < estimate.value < estimate.interval[1]
    assert width(estimate) == pytest.approx(2 * 1.96 * 100 * np.sqrt(0.7 * 0.3 / 4000), rel=0.1)


def test_a_mean_and_a_share_have_the_intervals_of_scipy():
    values = np.array([3.0, 5.0, 4.5, 1.0])
    error = values.std(ddof=1) / 2
    ours = student(float(values.mean()), error, 3, confidence=0.9)
    theirs = stats.ttest_1samp(values, 0)
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval(0.9)))
    assert ours.p_value == pytest.approx(theirs.pvalue)
    for events in (0, 3, 20):
        low, high = stats.binomtest(events, 20).proportion_ci(0.9)
        share = proportion(events, 20, confidence=0.9)
        assert (share.value, *share.interval) == pytest.approx((5 * events, 100 * low, 100 * high))


def test_only_a_difference_has_a_p_value(draw):
    hits = Hits(draw(1, 100, 0.7))
    estimate = difference(hits, Hits(draw(1, 100, 0.5)), **OPTIONS)
    assert estimate.require_p_value() == estimate.p_value
    with pytest.raises(ValueError, match="is not a difference: it has no p-value"):
        accuracy(hits, **OPTIONS).require_p_value()


def test_batches_are_drawn_whole(draw):
    """Ten copies of a tenth of the examples know no more than that tenth."""
    few = draw(1, 400, 0.7)
    copies, batches = np.repeat(few, 10, axis=1), np.repeat(np.arange(400), 10)
    by_example, by_batch = (
        accuracy(Hits(copies), **OPTIONS),
        accuracy(Hits(copies, batches), **OPTIONS),
    )
    assert width(by_batch) == pytest.approx(np.sqrt(10) * width(by_example), rel=0.1)
    assert width(by_batch) == pytest.approx(width(accuracy(Hits(few), **OPTIONS)), rel=0.1)


def test_a_short_last_batch_counts_for_what_it_holds():
    batches = np.array([0, 0, 0, 0, 1])
    estimate = accuracy(Hits(np.array([[True, True, True, True, False]]), batches), **OPTIONS)
    assert estimate.value == 80
    low, high = estimate.interval
    assert low < 20
    assert high > 99  # of two batches hardly anything is known


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_all_right_has_the_interval_of_clopper_and_pearson(n):
    estimate = accuracy(Hits(np.ones((1, n), bool)), **OPTIONS)
    exact = stats.binomtest(n, n).proportion_ci(0.95)
    assert estimate.interval == pytest.approx((100 * exact.low, 100))
    assert 100 - estimate.interval[0] == pytest.approx(370 / n, rel=0.1)  # about the rule of three
    none = accuracy(Hits(np.zeros((1, n), bool)), **OPTIONS)
    assert none.interval == pytest.approx((0, 100 - estimate.interval[0]))


def test_all_right_in_batches_counts_the_batches():
    batches = np.arange(1000) // 10
    estimate = accuracy(Hits(np.ones((5, 1000), bool), batches), **OPTIONS)
    expected = accuracy(Hits(np.ones((1, 100), bool)), **OPTIONS)
    assert estimate.interval == pytest.approx(expected.interval)


@pytest.mark.parametrize(("p", "n"), [(0.99, 100), (0.999, 1000), (0.9, 50)])
def test_intervals_cover_near_100_percent(p, n):
    generator = np.random.default_rng(n)
    trials = 400
    estimates = [accuracy(Hits(generator.random((1, n)) < p), **OPTIONS) for _ in range(trials)]
    inside = np.mean([f.interval[0] <= 100 * p <= f.interval[1] for f in estimates])
    assert inside > 0.94


def test_seeds_that_differ_widen_the_interval(draw):
    accuracies = np.array([0.5, 0.6, 0.7, 0.8, 0.9])[:, None]
    estimate = accuracy(Hits(draw(5, 10000, accuracies)), **OPTIONS)
    half = 2.78 * 100 * np.std(accuracies, ddof=1) / np.sqrt(5)  # Student's t, 4 degrees of freedom
    assert estimate.value == pytest.approx(70, abs=1)
    assert width(estimate) == pytest.approx(2 * half, rel=0.1)
    fixed_seeds = accuracy(Hits(draw(5, 10000, accuracies)), **OPTIONS, over_seeds=False)
    assert width(fixed_seeds) < width(estimate) / 10


def test_seeds_and_examples_that_both_vary_have_the_two_way_variance():
    """As for random rows and columns: their mean squares, minus that of the residuals."""
    seeds, n = 4, 60
    generator = np.random.default_rng(0)
    able = np.array([0.0, 0.1, 0.2, 0.3])[:, None]
    correct = generator.random((seeds, n)) < 0.2 + 0.5 * (generator.random(n) > 0.4) + able
    by_seed, by_example = correct.mean(1), correct.mean(0)
    rest = correct - by_seed[:, None] - by_example + correct.mean()
    seed_square = n * by_seed.var(ddof=1)
    example_square = seeds * by_example.var(ddof=1)
    rest_square = np.square(rest).sum() / ((seeds - 1) * (n - 1))
    assert rest_square < min(seed_square, example_square)
    variance = (seed_square + example_square - rest_square) / (seeds * n)
    parts = seed_square**2 / (seeds - 1) + example_square**2 / (n - 1)
    freedom = (seed_square + example_square) ** 2 / parts
    # Bonett and Price's interval of a paired difference, here to models that are always wrong.
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance + 2 / (n + 2) ** 2)
    estimate = difference(Hits(correct), Hits(np.zeros((seeds, n), bool)), **OPTIONS)
    assert width(estimate) == pytest.approx(2 * 100 * half)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("over_seeds", [True, False])
def test_intervals_cover(seeds, over_seeds):
    """Models scatter about 70 %, on test sets whose examples are hard or easy for all of them."""
    generator = np.random.default_rng(seeds)
    inside, trials = 0, 300
    for _ in range(trials):
        shared = generator.random(400)  # of each example, for all seeds
        individual = generator.random((seeds, 400))
        difficulty = np.where(generator.random((seeds, 400)) < 0.8, shared, individual)
        p = generator.normal(0.7, 0.02 if over_seeds and seeds > 1 else 0, (seeds, 1))
        estimate = accuracy(Hits(difficulty < p), confidence=0.95, over_seeds=over_seeds)
        inside += estimate.interval[0] <= 70 <= estimate.interval[1]
    assert inside / trials > 0.915


def test_pairing_removes_what_is_common(draw):
    first = draw(3, 2000, 0.7)
    second = first.copy()
    second[:, :40] = True  # better on 40 examples at most, otherwise the same
    paired = difference(Hits(second), Hits(first), **OPTIONS)
    unpaired = width(accuracy(Hits(first), **OPTIONS))
    assert paired.value == pytest.approx(100 * (second.mean() - first.mean()))
    assert width(paired) < unpaired / 2
    assert paired.sign == 1
    assert paired.p_value < 0.05


def test_the_seeds_are_paired(draw):
    """Models of very different accuracy, each one point better: the difference is sure."""
    p = np.array([0.5, 0.7, 0.9])[:, None]
    first = draw(3, 5000, p)
    second = first | draw(3, 5000, 0.1)
    batches = np.arange(5000) // 10
    estimate = difference(Hits(second, batches), Hits(first, batches[::-1].copy()), **OPTIONS)
    assert width(estimate) < width(accuracy(Hits(first, batches), **OPTIONS)) / 5


def test_no_difference_is_known_up_to_the_examples(draw):
    same = draw(3, 1000, 0.7)
    estimate = difference(Hits(same), Hits(same), **OPTIONS)
    assert (estimate.value, estimate.p_value, estimate.sign) == (0, 1, 0)
    assert estimate.interval[1] == pytest.approx(-estimate.interval[0])
    assert 0.2 < estimate.interval[1] < 0.4  # the rule of three: 3 of 1000
    assert estimate.within(1.0)
    batches = np.arange(1000) // 10
    clustered = difference(Hits(same, batches), Hits(same), **OPTIONS)
    assert clustered.interval[1] > 2  # of 100 batches
    other = difference(Hits(draw(1, 3000, 0.7)), Hits(draw(1, 3000, 0.7)), **OPTIONS)
    assert other.sign == 0
    assert other.p_value > 0.05


def test_a_difference_counts_one_more_example_gained_and_one_more_lost():
    """Of 50 examples 10 are gained and 4 lost: 6 of 52, with the two in the variance, too."""
    changes = np.repeat([1, -1, 0], [10, 4, 36])
    estimate = mean_change(changes, **OPTIONS)
    assert estimate.value == pytest.approx(12)
    center = 100 * 6 / 52
    error = 100 * np.sqrt(changes.var(ddof=1) / 50 + 2 / 52**2)
    half = stats.t.ppf(0.975, 49) * error
    assert estimate.interval == pytest.approx((center - half, center + half))
    assert estimate.p_value == pytest.approx(2 * stats.t.sf(center / error, 49))


@pytest.mark.parametrize(("n", "rate"), [(50, 0.02), (200, 0.01), (120, 0.2)])
def test_differences_cover_where_few_examples_differ(n, rate):
    generator = np.random.default_rng(n)
    inside, trials = 0, 400
    for _ in range(trials):
        u = generator.random(n)
        estimate = mean_change(np.where(u < rate, 1, np.where(u < 1.5 * rate, -1, 0)), **OPTIONS)
        inside += estimate.interval[0] <= 50 * rate <= estimate.interval[1]
    assert inside / trials > 0.94


def test_two_orders_are_paired_by_example():
    """Batches of two orders that share what is hard about an example: pairing removes it."""
    generator = np.random.default_rng(2)
    n = 2000
    hard = generator.random(n)
    orders = [np.arange(n) // 10, generator.permutation(n) // 10]
    shared = [generator.normal(0, 0.05, n // 10)[batches] for batches in orders]
    first, second = (Hits((hard < 0.7 + s)[None], b) for s, b in zip(shared, orders, strict=True))
    estimate = difference(first, second, **OPTIONS)
    unpaired = np.hypot(width(accuracy(first, **OPTIONS)), width(accuracy(second, **OPTIONS)))
    assert width(estimate) < 0.6 * unpaired


def test_batches_of_both_orders_count(draw):
    """Whole batches are right or wrong, in an order of their own: 200 units, not 2000."""
    correct = np.repeat(draw(1, 200, 0.5), 10, axis=1)
    other = np.repeat(draw(1, 200, 0.5), 10, axis=1)
    order = np.random.default_rng(1).permutation(2000)
    batches = np.arange(2000) // 10
    moved, moved_batches = np.empty_like(other), np.empty_like(batches)
    moved[:, order], moved_batches[order] = other, batches
    estimate = difference(Hits(correct, batches), Hits(moved, moved_batches), **OPTIONS)
    expected = 2 * 1.97 * 100 * np.sqrt(2 * 0.25 / 200)
    assert width(estimate) == pytest.approx(expected, rel=0.1)


def test_the_choice_of_orders_has_a_variance():
    share = np.full((1, 4000), 0.5)
    estimate = accuracy(Hits(share, order_variance=4.0), **OPTIONS)
    assert width(estimate) == pytest.approx(2 * 1.96 * 2, rel=0.05)


def test_balanced_differences_weigh_classes_alike():
    labels = np.repeat([0, 1], [900, 100])
    before = np.zeros((1, 1000), bool)
    after = (labels == 0)[None]
    estimate = difference(balanced(Hits(after), labels), balanced(Hits(before), labels), **OPTIONS)
    assert estimate.value == pytest.approx(50)


def test_a_balanced_accuracy_is_the_mean_over_the_classes_that_occur():
    """Also for a class with one example, and with a class number that none has."""
    labels = np.array([0, 0, 0, 0, 0, 1, 3, 3, 3, 3])
    correct = np.array([[1, 1, 0, 0, 0, 1, 1, 1, 1, 0]], bool)
    estimate = difference(
        balanced(Hits(correct), labels), balanced(Hits(~correct), labels), **OPTIONS
    )
    accuracy_by_class = np.array([2 / 5, 1, 3 / 4])
    assert estimate.value == pytest.approx(100 * np.mean(2 * accuracy_by_class - 1))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_is_at_most_100_points(sign):
    estimate = mean_change(sign * np.array([1, 1, 1, 1, 0]), **OPTIONS)
    assert sign * estimate.value == pytest.approx(80)
    assert max(sign * bound for bound in estimate.interval) == 100


def test_p_values_are_adjusted_by_holms_method():
    assert adjust_p_values([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_p_values([0.5, 0.9]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": 1.0}, r"confidence=1\.0: give a number between 0 and 1"),
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
