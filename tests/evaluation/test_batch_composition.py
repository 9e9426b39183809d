"""What a batch's composition says about its labels."""

import itertools
import math

import numpy as np
import pytest

from pnoise_jax import data, evaluation

LABELS = np.repeat(np.arange(10), 100).astype(np.int32)


def batches_of(mixed_share, batch_size, labels=LABELS):
    order = data.partly_sorted_order(labels, mixed_share=mixed_share, batch_size=batch_size, seed=0)
    return evaluation.in_batches(order, batch_size)


def test_examples_know_their_batch():
    batches = evaluation.in_batches(np.array([4, 2, 0, 1, 3]), 2)
    assert batches.tolist() == [1, 1, 0, 2, 0]


def test_purity_counts_mates_with_the_same_label():
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    batches = np.array([0, 0, 0, 1, 1, 1, 2])  # the last example is alone and does not count
    by_hand = [1 / 2, 1 / 2, 0, 1 / 2, 1 / 2, 0]
    assert evaluation.purity(labels, batches) == pytest.approx(np.mean(by_hand))
    assert evaluation.purity(labels, np.arange(7)) is None


@pytest.mark.parametrize("batch_size", [2, 10, 100])
def test_in_a_pure_batch_one_label_tells_all_others(batch_size):
    bits = evaluation.label_bits_per_batch(LABELS, batches_of(0, batch_size))
    assert bits == pytest.approx((batch_size - 1) * math.log2(10))


@pytest.mark.parametrize("batch_size", [2, 10, 100])
def test_a_shuffled_order_tells_nothing(batch_size):
    bits = evaluation.label_bits_per_batch(LABELS, batches_of(1, batch_size))
    assert bits == pytest.approx(0, abs=0.05)


def test_bits_and_purity_rise_together():
    all_batches = [batches_of(share, 10) for share in (1, 0.8, 0.6, 0.4, 0.2, 0)]
    for measure in (evaluation.purity, evaluation.label_bits_per_batch):
        values = [measure(LABELS, batches) for batches in all_batches]
        assert values == sorted(values)


def test_bits_are_the_expected_log_ratio_of_the_two_accounts():
    """All batches of 3 labels, as often as the account with a home class says."""
    frequencies, share = np.array([0.25, 0.75]), 0.5
    labels, expected = [], 0.0
    for triple in itertools.product(range(2), repeat=3):
        independent = np.prod(frequencies[list(triple)])
        with_home = sum(
            frequencies[home]
            * np.prod([share * (y == home) + (1 - share) * frequencies[y] for y in triple])
            for home in range(2)
        )
        expected += with_home * math.log2(with_home / independent)
        labels += round(with_home * 2048) * list(triple)  # the probabilities are 2048ths
    labels = np.array(labels, np.int32)
    actual = evaluation.label_bits_per_batch(labels, np.arange(len(labels)) // 3)
    assert np.bincount(labels) / len(labels) == pytest.approx(frequencies)
    assert actual == pytest.approx(expected, rel=1e-4)


def test_batches_of_many_classes_do_not_overflow():
    labels = np.repeat(np.arange(2000), 400).astype(np.int32)
    bits = evaluation.label_bits_per_batch(labels, np.arange(len(labels)) // 400)
    assert bits == pytest.approx(399 * math.log2(2000))


@pytest.mark.parametrize("counts", [(3, 3, 4), (2, 3, 1), (1,) * 9, (1,) * 58])
def test_a_batch_with_all_classes_has_no_other_home(counts):
    """Even if rounding makes the classes' shares sum to a little more than 1."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    bits = evaluation.label_bits_per_batch(labels, np.zeros(len(labels), np.int64))
    assert np.isfinite(bits)
    assert bits >= 0


@pytest.mark.parametrize("order", [[0, 0, 1, 2], [0, 2], [1, 2, 3]])
def test_an_order_has_every_example_once(order):
    with pytest.raises(ValueError, match=r"order: give each of the indices 0 to \d once"):
        evaluation.in_batches(np.array(order), 2)
