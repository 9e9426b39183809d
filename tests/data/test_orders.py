"""Orders between sorted and shuffled."""

import numpy as np
import pytest

from pnoise_jax import data

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(7), 13)).astype(np.int32)


@pytest.mark.parametrize("batch_size", [1, 10, 91, 200])
@pytest.mark.parametrize("mixed_share", [0.0, 0.3, 1.0])
def test_every_example_comes_once(mixed_share, batch_size):
    order = data.partly_sorted_order(LABELS, mixed_share=mixed_share, batch_size=batch_size, seed=1)
    assert sorted(order) == list(range(len(LABELS)))


def test_a_share_of_zero_is_class_order():
    order = data.partly_sorted_order(LABELS, mixed_share=0, batch_size=10, seed=1)
    np.testing.assert_array_equal(order, data.evaluation_order(LABELS, "class_sorted", seed=0))


def test_no_batch_has_more_places_drawn_than_its_share():
    class_sorted = data.evaluation_order(LABELS, "class_sorted", seed=0)
    order = data.partly_sorted_order(LABELS, mixed_share=0.3, batch_size=10, seed=1)
    moved = [int((order != class_sorted)[i : i + 10].sum()) for i in range(0, len(order), 10)]
    assert max(moved) == 3
    assert sum(moved) > 20  # of 27 drawn, few fall back into their own place


def test_a_share_of_one_leaves_no_trace_of_the_classes():
    order = data.partly_sorted_order(LABELS, mixed_share=1, batch_size=10, seed=1)
    neighbours_alike = np.mean(np.diff(LABELS[order]) == 0)
    assert neighbours_alike < 0.3  # a seventh by chance, all but 6 of 90 in class order


def test_the_seed_decides():
    def draw(seed):
        return data.partly_sorted_order(LABELS, mixed_share=0.5, batch_size=10, seed=seed)

    np.testing.assert_array_equal(draw(3), draw(3))
    assert (draw(3) != draw(4)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixed_share": 1.5, "batch_size": 10}, r"mixed_share=1\.5: give a number in \[0, 1\]"),
        ({"mixed_share": 0.5, "batch_size": 0}, r"batch_size=0"),
    ],
)
def test_bad_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        data.partly_sorted_order(LABELS, seed=0, **options)


def test_the_stored_order_is_the_data_sets_own():
    order = data.evaluation_order(LABELS, "stored", seed=3)
    np.testing.assert_array_equal(order, np.arange(len(LABELS)))
