"""Metrics: against scikit-learn, and whether they depend on how examples are batched."""

import re
import warnings

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from pnoise_jax.evaluation import metrics

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 7, 205)
PREDICTED = np.where(GENERATOR.random(205) < 0.6, LABELS, GENERATOR.integers(0, 9, 205))


def batches(order, batch_size=10):
    return metrics.in_batches_of(LABELS, PREDICTED, order, batch_size)


def test_whole_set_metrics_are_scikit_learns_in_any_order():
    for order in (np.arange(205), GENERATOR.permutation(205)):
        batched = batches(order)
        assert [len(labels) for labels, _ in batched] == [10] * 20 + [5]
        assert metrics.accuracy(batched) == pytest.approx(100 * np.mean(LABELS == PREDICTED))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some predictions are not labels
            balanced = balanced_accuracy_score(LABELS, PREDICTED)
        assert metrics.mean_per_class(batched) == pytest.approx(100 * balanced)
        expected = f1_score(LABELS, PREDICTED, average="macro", zero_division=0)
        assert metrics.macro_f1(batched) == pytest.approx(100 * expected)


def test_a_class_of_one_example_counts_as_any_other_and_one_without_examples_does_not():
    labels, predicted = np.array([0, 0, 0, 0, 1, 3, 3]), np.array([0, 0, 0, 1, 1, 3, 0])
    balanced = 100 * (3 / 4 + 1 + 1 / 2) / 3
    assert metrics.mean_per_class([(labels, predicted)]) == pytest.approx(balanced)


def test_the_published_meter_is_the_mean_of_running_accuracies():
    order = np.argsort(LABELS, kind="stable")
    total = correct = 0
    running = []
    for start in range(0, 205, 10):
        rows = order[start : start + 10]
        total += len(rows)
        correct += int((LABELS[rows] == PREDICTED[rows]).sum())
        running.append(correct / total)
    assert metrics.published_meter(batches(order)) == pytest.approx(100 * np.mean(running))


def test_the_published_meter_weighs_early_examples_most():
    labels = np.repeat(np.arange(10), 100)
    predicted = np.where(labels == 0, labels, 10)  # only the first class is ever right
    batched = metrics.in_batches_of(labels, predicted, np.arange(1000), 10)
    assert metrics.accuracy(batched) == pytest.approx(10)
    assert metrics.published_meter(batched) == pytest.approx(33, abs=0.5)


def test_a_mean_over_batches_depends_on_the_batches():
    averaged = metrics.mean_over_batches(metrics.macro_f1)
    values = {averaged(batches(GENERATOR.permutation(205))) for _ in range(3)}
    assert len(values) == 3
    assert averaged.__name__ == "macro_f1 averaged over batches"


def test_metrics_have_names():
    assert metrics.metric_named("macro_f1") is metrics.macro_f1
    assert metrics.metric_named("pnoise_jax.evaluation.metrics:accuracy") is metrics.accuracy
    with pytest.raises(ValueError, match="metric='macrof1' is unknown; did you mean 'macro_f1'"):
        metrics.metric_named("macrof1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:f", "cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
        ("os:nothere", "cannot be imported (AttributeError: module 'os' has no attribute"),
        (":f", "cannot be imported (ValueError"),
        ("os:sep", "is of type str, which cannot be called"),
    ],
)
def test_a_metric_that_cannot_be_used_is_refused_with_a_fix(name, message):
    expected = f"metric={name!r} {re.escape(message)}.*; give 'module:function', a function of"
    with pytest.raises(ValueError, match=expected):
        metrics.metric_named(name)


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_labels_in_a_column_are_refused(name):
    """Compared with predictions in a row they would count each pair."""
    batches = [(np.array([[0], [1]]), np.array([0, 1]))]
    with pytest.raises(ValueError, match=r"batch 0 has labels \(2, 1\) and predictions \(2,\)"):
        metrics.METRICS[name](batches)
    with pytest.raises(ValueError, match="label -1: leave out"):
        metrics.METRICS[name]([(np.array([0, -1]), np.array([0, 1]))])
