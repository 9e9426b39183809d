"""Some examples of a data set."""

import pickle

import numpy as np
import pytest

from pnoise_jax import data


def test_selected_examples_are_those_asked_for(digits):
    chosen = data.select(digits, np.array([7, 2, 9]))
    assert len(chosen) == 3
    for position, i in enumerate((7, 2, 9)):
        np.testing.assert_array_equal(chosen[position]["image"], digits[i]["image"])
        assert chosen[position]["label"] == digits[i]["label"]
    assert (chosen.num_classes, chosen.class_names) == (10, digits.class_names)
    with pytest.raises(ValueError, match="read-only"):
        chosen.labels[0] = 1
    copy = pickle.loads(pickle.dumps(chosen))  # for worker processes
    np.testing.assert_array_equal(copy[1]["image"], digits[2]["image"])


def test_a_selection_is_trained_on_like_any_data_set(digits):
    chosen = data.select(digits, np.flatnonzero(digits.labels == 3))
    with data.train_batches(chosen, batch_size=20, seed=0, start_step=0, num_steps=5) as batches:
        seen = [batch["label"] for batch in batches]
    np.testing.assert_array_equal(np.concatenate(seen), np.full(100, 3))


def test_a_fixed_number_of_every_class_is_drawn():
    labels = np.repeat([0, 2, 1], (4, 9, 6))
    drawn = data.draw_per_class(labels, 4, num_classes=3, seed=1, field="count")
    np.testing.assert_array_equal(np.bincount(labels[drawn]), [4, 4, 4])
    assert len(set(drawn)) == 12
    np.testing.assert_array_equal(
        drawn, data.draw_per_class(labels, 4, num_classes=3, seed=1, field="count")
    )
    assert set(drawn) != set(data.draw_per_class(labels, 4, num_classes=3, seed=2, field="count"))


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (5, "count=5: class 0 has only 4 examples; give at most 4"),
        (0, "count=0: give a whole number of at least 1"),
        (2.0, r"count=2\.0: give a whole number"),
        (True, "count=True: give a whole number"),
    ],
)
def test_bad_counts_are_named(count, message):
    with pytest.raises(ValueError, match=message):
        data.draw_per_class(np.repeat([0, 1], (4, 9)), count, num_classes=2, seed=0, field="count")


@pytest.mark.parametrize(("labels", "missing"), [([], 0), ([0, 0, 2], 1), ([0, 1], 2), ([2, 1], 0)])
def test_a_class_without_examples_is_named(labels, missing):
    message = f"count=1: class {missing} has no examples; set a larger data.train_split"
    with pytest.raises(ValueError, match=message):
        data.draw_per_class(np.array(labels), 1, num_classes=3, seed=0, field="count")
