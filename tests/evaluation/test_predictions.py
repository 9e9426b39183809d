"""How predictions are collected: in the data set's order, with a sentence now and then."""

import types

import numpy as np
import pytest

from pnoise_jax import data
from pnoise_jax.evaluation import predictions

COUNT = 8
DATASET = data.Dataset("digits", "test", 10, (8, 8, 1), np.zeros(COUNT, np.int32), None)


@pytest.fixture
def clock(monkeypatch):
    """Sets the times at which the evaluation starts, and at which each batch is done."""

    def use(times):
        times = iter(times)
        replaced = types.SimpleNamespace(monotonic=lambda: next(times))
        monkeypatch.setattr(predictions, "time", replaced)

    return use


def scores(orders):
    """Batches whose arrays tell which example they are of; -1 is padding."""
    for order in orders:
        index = np.array(order)
        yield index, {"rank": index * 2, "nll": index + 0.5, "predicted": index % 3}


def test_scores_are_put_in_order_without_padding():
    found = predictions.collect(scores([[7, 3, 1, -1], [0, 2, 4, 6], [5, -1, -1, -1]]), DATASET, "")
    np.testing.assert_array_equal(found.rank, 2 * np.arange(COUNT))
    np.testing.assert_array_equal(found.nll, np.arange(COUNT) + 0.5)
    np.testing.assert_array_equal(found.predicted, np.arange(COUNT) % 3)


def test_an_example_without_a_score_is_an_error():
    with pytest.raises(ValueError, match=r"logits of example 6 of digits's split 'test' are not"):
        predictions.collect(scores([[0, 1, 2, 3], [4, 5, 7, -1]]), DATASET, "clean")


def test_progress_is_reported_every_half_minute_with_the_rate_after_the_first_batch(clock):
    """An example takes 10 s, but the first, for which the program is compiled, 100 s."""
    clock([0, 100, 110, 120, 131, 141, 151, 162, 172])
    sentences = []
    predictions.collect(scores([[i, -1] for i in range(COUNT)]), DATASET, "clean", sentences.append)
    assert sentences == [
        "clean: 2 of 8 examples, 0.1 examples/s, 0:01:00 left",
        "clean: 5 of 8 examples, 0.1 examples/s, 0:00:31 left",  # 4 in 41 s
        "clean: 8 of 8 examples, 0.1 examples/s, 0:00:00 left",
    ]


def test_without_a_reader_nothing_is_reported(clock):
    clock([0, 100, 200])
    found = predictions.collect(scores([[0, 1, 2, 3], [4, 5, 6, 7]]), DATASET, "clean")
    assert np.isfinite(found.nll).all()


def test_a_result_is_fetched_while_the_next_is_computed():
    started = []

    def results():
        for number in range(3):
            started.append(number)
            yield number

    fetched = [(result, len(started)) for result in predictions.fetch_behind(results())]
    assert fetched == [(0, 2), (1, 3), (2, 3)]
