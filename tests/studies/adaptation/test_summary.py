"""The table of a study and its sentences, on predictions with a known truth."""

import numpy as np
import pytest

from pnoise_jax.studies.adaptation.measuring import Measured, rows_of
from pnoise_jax.studies.adaptation.methods import Method
from pnoise_jax.studies.adaptation.summary import summarise
from pnoise_jax.studies.adaptation.wording import on_upper_bound, sentences

LABELS = np.repeat([0, 1], (300, 100))
BATCHES = np.arange(400) // 10
SOURCE, TVT, NOISY, UPPER = (
    Method("source_only"),
    Method("tvt"),
    Method("tvt", noise=True),
    Method("target_labels"),
)


def measured(method, seed, shares, looks=()):
    """A run that is right on these shares of the images, by protocol; protocols are nested."""
    draws = np.random.default_rng([seed, 7]).random(400)
    correct = {protocol: draws < share for protocol, share in shares.items()}
    predicted = {p: np.where(right, LABELS, 1 - LABELS) for p, right in correct.items()}
    batches = {protocol: BATCHES for protocol in correct if protocol != "clean"}
    last = (100, 100 * float(correct["clean"].mean()), 50.0)
    return Measured(method, seed, LABELS, predicted, correct, batches, (*looks, last))


def study(seeds=3, shuffled=0.8, listed=0.98, looks=()):
    runs = []
    for seed in range(seeds):
        runs.append(measured(SOURCE, seed, {"clean": 0.6}))
        runs.append(measured(TVT, seed, {"clean": 0.8}, looks))
        noisy = {"clean": 0.8, "noisy_shuffled": shuffled, "noisy_listed": listed}
        runs.append(measured(NOISY, seed, noisy))
        runs.append(measured(UPPER, seed, {"clean": 0.9}))
    return runs


def test_values_and_differences_are_means_of_the_runs():
    runs = study()
    rows = {row.method: row for row in summarise(runs)}
    assert list(rows) == [SOURCE, TVT, NOISY, UPPER]
    means = {m: np.mean([r.accuracy("clean") for r in runs if r.method == m]) for m in rows}
    for method, row in rows.items():
        assert row.values["clean"].value == pytest.approx(means[method])
        low, high = row.values["clean"].interval
        assert low < means[method] < high
    assert rows[TVT].adapted.value == pytest.approx(means[TVT] - means[SOURCE])
    assert rows[TVT].adapted.sign == 1
    gap = 100 * (means[TVT] - means[SOURCE]) / (means[UPPER] - means[SOURCE])
    assert rows[TVT].gap_closed == pytest.approx(gap)
    assert rows[SOURCE].adapted is rows[SOURCE].gap_closed is rows[UPPER].gap_closed is None


def test_noise_without_effect_is_not_resolved_but_the_order_is():
    rows = summarise(study())
    noisy = next(row for row in rows if row.method == NOISY)
    assert noisy.effects["trained"].value == 0
    assert noisy.effects["trained"].sign == noisy.effects["shuffled"].sign == 0
    assert noisy.effects["order"].sign == 1
    text = sentences(rows)[-1]
    assert text.startswith("TVT: on top of TVT without noise (")
    assert text.count("not resolved") == 2
    assert "read from the batch and not from the image" in text


def test_noise_that_harms_is_called_so():
    noisy = summarise(study(shuffled=0.5, listed=0.5))[2]
    assert noisy.effects["shuffled"].sign == -1
    assert noisy.effects["order"].sign == 0
    assert (
        "the target's stored order changes that by 0.0 points ("
        in sentences(summarise(study(3, 0.5, 0.5)))[1]
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_claim_nothing(seeds):
    rows = summarise(study(seeds))
    assert all(row.values["clean"].interval is None for row in rows)
    assert all(d.interval is None for row in rows for d in row.effects.values())
    assert rows[2].effects["order"].value > 0
    assert rows[2].effects["order"].sign == 0
    texts = sentences(rows)
    assert "an interval needs at least 3: none is given" in texts[0]
    assert "resolved" not in texts[1]


def test_the_gain_of_choosing_by_target_labels_is_the_best_minus_the_last():
    looks = ((25, 70.0, 60.0), (50, 95.0, 90.0))
    rows = summarise(study(looks=looks))
    last = rows[1].values["clean"].value
    assert rows[1].chosen == 95.0
    assert rows[1].choice == pytest.approx(95.0 - last)
    assert rows[0].chosen is rows[0].choice is None  # not evaluated during training


def test_the_mean_per_class_weighs_classes_equally():
    runs = study()
    by_class = summarise(runs, metric="per_class_mean")
    for row in by_class:
        of_row = [run for run in runs if run.method == row.method]
        halves = [
            100 * np.mean([r.correct["clean"][c == LABELS].mean() for r in of_row]) for c in (0, 1)
        ]
        assert row.values["clean"].value == pytest.approx(np.mean(halves))
        low, high = row.values["clean"].interval
        assert low < row.values["clean"].value < high
        assert row.other["clean"] == pytest.approx(
            np.mean([run.accuracy("clean") for run in of_row])
        )
    assert "mean accuracy per class" in sentences(by_class, metric="per_class_mean")[1]
    with pytest.raises(ValueError, match="metric='f1' is unknown"):
        summarise(runs, metric="f1")


def test_an_upper_bound_that_was_trained_on_test_images_is_called_so():
    """On Office-Home and VisDA-2017, the target's images are both."""
    assert on_upper_bound(0, 40) == []
    assert "was trained on the test images with their labels" in on_upper_bound(40, 40)[0]
    assert "was trained on 10 of the 40 test images" in on_upper_bound(10, 40)[0]


def test_rows_have_what_adaptation_json_promises():
    rows = rows_of(study(1)[2])
    assert [row["protocol"] for row in rows] == ["clean", "noisy_shuffled", "noisy_listed"]
    assert rows[0]["purity"] is None
    assert rows[1]["purity"] == 1.0  # these batches are of one class each
    assert rows[2]["n"] == 400
