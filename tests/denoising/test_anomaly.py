"""Anomaly scores: the curve and its interval against other ways, and the study around it."""

import numpy as np
import pytest
from scipy import stats

from pnoise_jax import denoising, parallel, training
from pnoise_jax.studies import anomaly
from pnoise_jax.studies.reporting import style
from tests.denoising.test_task import denoising_config
from tests.training.runs import small_config


def drawn(shift, *, count=60, seed=0):
    generator = np.random.default_rng(seed)
    anomalous = np.arange(3 * count) < count
    return generator.normal(size=3 * count) + shift * anomalous, anomalous


def test_the_area_is_the_share_of_pairs_in_order():
    scores, anomalous = drawn(1.0)
    scores = scores.round(1)  # with ties
    curve = denoising.roc_curve(scores, anomalous)
    theirs, ours = scores[anomalous][:, None], scores[~anomalous]
    assert curve.auroc == pytest.approx(np.mean((theirs > ours) + (theirs == ours) / 2))
    assert (curve.normal, curve.anomalous) == (120, 60)
    assert np.trapezoid(curve.true_positive_rate, curve.false_positive_rate) == pytest.approx(
        curve.auroc
    )


def test_the_interval_has_its_confidence():
    """Of 100 data sets whose true area is known about 95 should have it in their interval."""
    truth = stats.norm.cdf(1.0 / np.sqrt(2))
    inside = 0
    for seed in range(100):
        low, high = denoising.roc_curve(*drawn(1.0, count=30, seed=seed)).interval
        inside += low <= truth <= high
    assert 88 <= inside <= 99


def test_the_same_seed_gives_the_same_interval_and_confidence_its_width():
    one, again = (denoising.roc_curve(*drawn(0.5), seed=3).interval for _ in range(2))
    assert one == again
    narrow = denoising.roc_curve(*drawn(0.5), confidence=0.5).interval
    assert narrow[1] - narrow[0] < 0.5 * (one[1] - one[0])


def test_a_perfect_separation_is_not_certain():
    scores, anomalous = drawn(100.0)
    assert denoising.roc_curve(scores, anomalous).interval == pytest.approx((0.025 ** (1 / 60), 1))
    worst = denoising.roc_curve(-scores, anomalous)
    assert (worst.auroc, worst.interval[0]) == (0, 0)
    assert 0 < worst.interval[1] < 0.1


@pytest.mark.parametrize(
    ("scores", "anomalous", "message"),
    [
        ([1.0, np.nan, 2, 3], [True, False, True, False], "1 of the scores are not finite"),
        ([1.0, 2, 3], [True, False, False], "1 anomalies and 2 normal examples"),
        ([1.0, 2, 3], [1, 0, 0], r"dtype int64: give \(n,\) numbers and \(n,\) bools"),
        ([1.0, 2], [True], "shape"),
    ],
)
def test_bad_scores_are_named(scores, anomalous, message):
    with pytest.raises(ValueError, match=message):
        denoising.roc_curve(np.array(scores), np.array(anomalous))


def test_the_nearest_distance_is_the_smallest():
    images = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
    expected = [np.min(np.linalg.norm((x - images[:3].astype(float)).reshape(3, -1) / 255, axis=1))
                for x in images]  # fmt: skip
    np.testing.assert_allclose(denoising.nearest_distances(images, images[:3]), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """A config, and a run of 2 steps with a class held out, in a list."""
    path = tmp_path_factory.mktemp("anomaly")
    config = denoising_config(data_dir, {"duration": "2 steps"})
    return config, path, [run for run, _ in anomaly.train_held_out(config, path, ["8"])]


def test_runs_with_held_out_classes_are_scored(runs, digits):
    config, path, directories = runs
    assert [each.name for each in directories] == ["held_out_8"]
    detections = [anomaly.detect(each) for each in directories]
    assert [each.held_out for each in detections] == [("8",)]
    assert {(each.curve.normal, each.curve.anomalous) for each in detections} == {(900, 100)}

    run = training.restore(directories[0], mesh=parallel.data_mesh())
    scores, anomalous = denoising.score_anomalies(run, mesh=parallel.data_mesh())
    np.testing.assert_array_equal(anomalous, digits.labels == 8)
    assert detections[0].curve.auroc == denoising.roc_curve(scores, anomalous).auroc
    assert detections[0].nearest.auroc > 0.6  # training images without eights

    written = anomaly.content(detections)
    assert written[0]["reconstruction_error"]["thresholds"][0] is None
    assert b"<svg" in style.svg(anomaly.roc_figure(detections))
    assert anomaly.tables(detections)[0].row_count == 1
    assert anomaly.tables(detections * 2)[0].row_count == 3  # with the mean

    before = (directories[0] / "metrics.jsonl").read_text()
    assert [each for each, _ in anomaly.train_held_out(config, path, ["8"])] == directories
    assert (directories[0] / "metrics.jsonl").read_text() == before  # not trained again


def test_what_has_no_anomalies_is_named(runs, data_dir, tmp_path):
    config, _, directories = runs
    run = training.restore(directories[0], mesh=parallel.data_mesh())
    for changes, message in (
        ({"task.held_out_classes": ()}, r"held_out_classes=\(\): training has seen every class"),
        ({"data.test_split": "test[:3]"}, r"data.test_split='test\[:3\]' of digits has no exam"),
    ):
        other = denoising_config(data_dir, {"task.held_out_classes": ("3",)} | changes)
        experiment = training.build(other)
        bad = training.Run(experiment, run.variables, 2, "params")
        if "split" in message:
            labels = set(experiment.test_data.labels.tolist())
            assert 3 not in labels
        with pytest.raises(ValueError, match=message):
            denoising.score_anomalies(bad, mesh=parallel.data_mesh())
    classifier = training.build(small_config(data_dir))
    bad = training.Run(classifier, {}, 2, "params")
    with pytest.raises(ValueError, match="'classification' reconstructs nothing"):
        denoising.score_anomalies(bad, mesh=parallel.data_mesh())
    with pytest.raises(ValueError, match="'classification' reconstructs nothing: hold classes"):
        next(anomaly.train_held_out(small_config(data_dir), tmp_path, None))
    with pytest.raises(ValueError, match="--held_out: there is no class 'eight'"):
        next(anomaly.train_held_out(config, tmp_path, ["eight"]))
    assert not list(tmp_path.iterdir())
