"""How predictions are collected: in the data set's order, with reports of the progress."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

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
    """Batches whose scores depend on the example's index; -1 is padding."""
    for order in orders:
        index = np.array(order)
        yield index, {"rank": index * 2, "nll": index + 0.5, "predicted": index % 3}


def test_scores_are_put_in_order_without_padding():
    actual = predictions.collect(
        scores([[7, 3, 1, -1], [0, 2, 4, 6], [5, -1, -1, -1]]), DATASET, ""
    )
    np.testing.assert_array_equal(actual.rank, 2 * np.arange(COUNT))
    np.testing.assert_array_equal(actual.nll, np.arange(COUNT) + 0.5)
    np.testing.assert_array_equal(actual.predicted, np.arange(COUNT) % 3)


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
    actual = predictions.collect(scores([[0, 1, 2, 3], [4, 5, 6, 7]]), DATASET, "clean")
    assert np.isfinite(actual.nll).all()


def test_a_result_is_fetched_while_the_next_is_computed():
    started = []

    def results():
        for number in range(3):
            started.append(number)
            yield number

    fetched = [(result, len(started)) for result in predictions.fetch_behind(results())]
    assert fetched == [(0, 2), (1, 3), (2, 3)]


def _score_plainly(logits, labels):
    """Row by row, as the definitions say; (rank, nll, predicted)."""
    rows = []
    for row, label in zip(logits, labels, strict=True):
        ahead = [c for c, x in enumerate(row) if not x <= row[label]]
        ahead += [c for c in range(label) if row[c] == row[label]]
        rows.append((len(ahead), special.logsumexp(row.astype(np.float64)) - row[label]))
    rank, nll = map(np.array, zip(*rows, strict=True))
    return rank, nll, logits.argmax(axis=1)


@pytest.mark.parametrize("classes", [1, 2, 7, 130])
@pytest.mark.parametrize("kind", ["plain", "ties", "confident", "masked", "far from 0"])
def test_predictions_are_what_the_definitions_say(classes, kind):
    generator = np.random.default_rng(classes)
    logits = generator.normal(size=(150, classes)).astype(np.float32)
    labels = generator.integers(0, classes, 150)
    if kind == "ties":
        logits = logits.round()
    if kind == "confident":
        logits -= 30
        logits[np.arange(150), labels] = 0  # as audits shift them: so nothing is rounded off
    if kind == "masked":
        logits[:, ::2] = -1e9
    if kind == "far from 0":
        logits += 1000
    rank, nll, predicted = _score_plainly(logits, labels)
    actual = predictions.Predictions.of(logits, labels)
    assert np.array_equal(actual.rank, rank)
    assert np.array_equal(actual.predicted, predicted)
    tolerance = {"confident": 1e-20, "masked": 100, "far from 0": 2e-4}.get(kind, 1e-6)
    np.testing.assert_allclose(actual.nll, nll, rtol=1e-5, atol=tolerance)
    total = special.logsumexp(logits, axis=1)
    np.testing.assert_allclose(predictions.log_sum_exp(logits), total, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_do_not_count_as_right(value):
    logits = np.zeros((3, 4), np.float32)
    logits[0, 2] = logits[1, 1] = value
    actual = predictions.Predictions.of(logits, np.array([1, 1, 0]))
    ranks = {"nan": [2, 4, 0], "inf": [2, 0, 0], "-inf": [1, 3, 0]}
    assert actual.rank.tolist() == ranks[str(value)]
    assert np.isfinite(actual.nll[2])


def test_a_tie_counts_beside_a_row_that_is_not_finite():
    logits = np.array([[np.nan, 1], [1, 1]], np.float32)
    assert predictions.Predictions.of(logits, np.array([0, 1])).rank.tolist() == [2, 1]


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_other_dtypes_are_scored_in_single_precision(dtype):
    actual = predictions.Predictions.of(np.zeros((1, 70_000), dtype), np.array([0]))
    np.testing.assert_allclose(actual.nll, np.log(70_000), rtol=1e-5)


def test_in_jax_the_scores_are_the_same():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(90, 6)).astype(np.float32).round(1)
    labels = generator.integers(0, 6, 90)
    ours = predictions.Predictions.of(logits, labels)
    batch = {"label": jnp.asarray(labels, jnp.int32)}
    theirs = predictions.score_logits(jnp.asarray(logits), batch)
    assert np.array_equal(ours.rank, theirs["rank"])
    assert np.array_equal(ours.predicted, theirs["predicted"])
    np.testing.assert_allclose(ours.nll, theirs["nll"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 64, 90])
@pytest.mark.parametrize("at_once", [1, 100, 2**17])
def test_batches_in_any_order_give_the_same_predictions(monkeypatch, size, at_once):
    monkeypatch.setattr(predictions, "_AT_ONCE", at_once)
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(90, 6)).astype(np.float32)
    labels = generator.integers(0, 6, 90)
    order = generator.permutation(90)
    rows = np.split(order, range(size, 90, size))
    actual = predictions.Predictions.of_batches(((r, logits[r]) for r in rows), labels)
    whole = predictions.Predictions.of(logits, labels)
    for name in ("rank", "nll", "predicted"):
        assert np.array_equal(getattr(actual, name), getattr(whole, name))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_without_a_logit_are_refused(label):
    with pytest.raises(ValueError, match=rf"labels go from .*{label}.* there are 3 logits"):
        predictions.Predictions.of(np.zeros((2, 3), np.float32), np.array([0, label]))


def test_the_lead_is_that_of_the_largest_logit():
    logits = np.array([[1.0, 3.0, 2.5], [0.0, 0.0, -1.0], [0.0, -500.0, -900.0]], np.float32)
    batch = {"label": np.zeros(3, np.int32)}
    for actual in (
        predictions.Predictions.of(logits, batch["label"]).lead,
        predictions.score_logits(jnp.asarray(logits), batch)["lead"],
    ):
        np.testing.assert_allclose(actual[:2], [0.5, 0.0], atol=1e-6)
        assert actual[2] >= 100
