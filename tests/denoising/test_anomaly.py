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


def hardly_separated(shift, anomalies, normal):
    """Normally distributed scores, and the true area."""
    area = stats.norm.cdf(shift / np.sqrt(2))
    return lambda g: (g.normal(size=anomalies) + shift, g.normal(size=normal)), area


def partly_separated(share, anomalies, normal):
    """A share of the anomalies look normal, and the others are beyond everything normal."""
    return lambda g: (
        np.where(g.random(anomalies) < share, g.random(anomalies), 2.0),
        g.random(normal),
    ), 1 - share / 2


@pytest.mark.parametrize(
    ("draw", "area"),
    [
        partly_separated(0.1, 10, 200),  # a bootstrap has the true area 60 times in 100 here
        partly_separated(0.1, 20, 200),
        partly_separated(0.02, 50, 100),
        hardly_separated(2.3, 10, 200),
        hardly_separated(3.3, 20, 200),
        hardly_separated(2.3, 200, 15),
    ],
)
def test_few_anomalies_and_areas_near_1_have_their_confidence(draw, area):
    generator, inside = np.random.default_rng(0), 0
    for _ in range(200):
        anomalies, normal = draw(generator)
        scores = np.concatenate([anomalies, normal])
        anomalous = np.arange(len(scores)) < len(anomalies)
        low, high = denoising.roc_curve(scores, anomalous).interval
        inside += low <= area <= high
    assert inside >= 186  # of 190 expected, two standard deviations less


@pytest.mark.parametrize("sign", [1, -1])
def test_a_single_misplaced_example_is_not_certainty(sign):
    scores = np.arange(520.0)
    anomalous = scores >= 500
    scores[499] = 500.5  # above one of the 20 anomalies
    curve = denoising.roc_curve(sign * scores, anomalous)
    distance = curve.auroc if sign == -1 else 1 - curve.auroc
    assert distance == pytest.approx(1e-4, rel=1e-9)
    width = curve.interval[1] - curve.interval[0]
    assert 0.1 < width < 0.2  # of 20 of 20: 0.17
    assert curve.interval[0] <= curve.auroc <= curve.interval[1]


def test_more_misplaced_examples_never_raise_the_interval_much():
    """The limits follow the area: there is no jump where it leaves the end."""
    limits = []
    for misplaced in range(0, 400, 5):  # normal examples above one anomaly
        scores = np.r_[np.full(20, 1000.0) + np.arange(20), np.arange(400.0)]
        scores[20 : 20 + misplaced] += 1000.5
        limits.append(denoising.roc_curve(scores, np.arange(420) < 20).interval)
    assert np.abs(np.diff(limits, axis=0)).max() < 0.03


@pytest.mark.parametrize(("anomalies", "normal"), [(9, 50), (50, 9), (2, 2)])
def test_too_few_have_no_interval(anomalies, normal):
    scores = np.arange(float(anomalies + normal))
    curve = denoising.roc_curve(scores, scores < anomalies)
    assert (curve.auroc, curve.interval) == (0.0, None)
    assert curve.no_interval == "too few for an interval"


def test_equal_scores_have_no_interval():
    curve = denoising.roc_curve(np.full(100, 0.1), np.arange(100) < 30)
    assert (curve.auroc, curve.interval) == (0.5, None)
    assert curve.no_interval == "all scores are equal"


@pytest.mark.parametrize("confidence", [95, 0, 1, -0.5, float("nan")])
def test_a_confidence_outside_0_and_1_is_named(confidence):
    with pytest.raises(ValueError, match=f"confidence={confidence}: give a number between 0 and"):
        denoising.roc_curve(*drawn(1.0), confidence=confidence)


def test_the_confidence_gives_the_width():
    one = denoising.roc_curve(*drawn(0.5)).interval
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
