"""Anomaly scores: the curve and its interval against other computations, and their study."""

import copy
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pnoise_jax import data, denoising, parallel, training
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


def well_separated(shift, anomalies, normal):
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
        partly_separated(0.1, 10, 200),
        partly_separated(0.1, 20, 200),
        partly_separated(0.02, 50, 100),
        # A bootstrap contains the true area of these three 77 to 81 times in 100.
        well_separated(2.3, 10, 200),
        well_separated(3.3, 20, 200),
        well_separated(2.3, 200, 15),
    ],
)
def test_intervals_of_few_anomalies_and_areas_near_1_have_their_confidence(draw, area):
    generator, inside = np.random.default_rng(0), 0
    for _ in range(200):
        anomalies, normal = draw(generator)
        scores = np.concatenate([anomalies, normal])
        anomalous = np.arange(len(scores)) < len(anomalies)
        low, high = denoising.roc_curve(scores, anomalous).interval
        inside += low <= area <= high
    assert inside >= 186  # of 190 expected


@pytest.mark.parametrize("sign", [1, -1])
def test_a_single_misplaced_example_is_not_certainty(sign):
    scores = np.arange(520.0)
    anomalous = scores >= 500
    scores[499] = 500.5  # above one of the 20 anomalies
    curve = denoising.roc_curve(sign * scores, anomalous)
    distance = curve.auroc if sign == -1 else 1 - curve.auroc
    assert distance == pytest.approx(1e-4, rel=1e-9)
    width = curve.interval[1] - curve.interval[0]
    assert 0.1 < width < 0.2  # 0.17 for 20 of 20
    assert curve.interval[0] <= curve.auroc <= curve.interval[1]


def test_more_misplaced_examples_never_raise_the_interval_much():
    """The limits follow the area, without a jump where it leaves the end."""
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


def test_the_confidence_determines_the_width():
    wide = denoising.roc_curve(*drawn(0.5)).interval
    narrow = denoising.roc_curve(*drawn(0.5), confidence=0.5).interval
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])


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
        ([1.0, 2j, 3, 4], [True, False, True, False], "scores have dtype complex128: give real"),
        (["a", "b", "c", "d"], [True, False, True, False], "scores have dtype .U1: give real"),
    ],
)
def test_bad_scores_are_named(scores, anomalous, message):
    with pytest.raises(ValueError, match=message):
        denoising.roc_curve(np.array(scores), np.array(anomalous))


def test_masked_arrays_are_named():
    scores, anomalous = drawn(1.0)
    masked = np.ma.array(scores, mask=scores > 1)
    with pytest.raises(ValueError, match=r"scores: \d+ elements are masked; leave these examples"):
        denoising.roc_curve(masked, anomalous)
    with pytest.raises(ValueError, match="anomalous: 180 elements are masked"):
        denoising.roc_curve(scores, np.ma.array(anomalous, mask=True))
    image = np.zeros((1, 2, 2, 1), np.uint8)
    with pytest.raises(ValueError, match="training_images: 4 elements are masked"):
        denoising.nearest_distances(image, np.ma.array(image, mask=True))
    whole = np.ma.array(scores)  # nothing is masked
    assert denoising.roc_curve(whole, anomalous).auroc == (
        denoising.roc_curve(scores, anomalous).auroc
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.int32])
def test_scores_may_have_any_real_type(dtype):
    scores, anomalous = np.arange(6.0), np.arange(6) > 2
    assert denoising.roc_curve(jnp.asarray(scores, dtype), anomalous).auroc == 1


@pytest.mark.parametrize(
    ("shape", "training", "dtype", "message"),
    [
        (
            (2, 2, 2, 1),
            (2, 4, 1, 1),
            np.uint8,
            r"shape \(2, 2, 1\) and training_images \(4, 1, 1\)",
        ),
        (
            (0, 2, 2, 1),
            (2, 2, 2, 1),
            np.uint8,
            r"^images have shape \(0, 2, 2, 1\) .* at least one",
        ),
        ((2, 2, 2, 1), (0, 2, 2, 1), np.uint8, "training_images have shape .* at least one image"),
        ((2,), (2,), np.uint8, r"shape \(2,\)"),
        ((2, 2, 2, 1), (2, 2, 2, 1), np.float32, "dtype float32: .* of uint8"),
    ],
)
def test_images_that_cannot_be_compared_are_named(shape, training, dtype, message):
    with pytest.raises(ValueError, match=message):
        denoising.nearest_distances(np.zeros(shape, dtype), np.zeros(training, dtype))


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


def test_classes_with_similar_names_have_separate_directories(data_dir, tmp_path, monkeypatch):
    names = ("C", "C++", "C#", "Java", "c", "!", "1_C", "x" * 120, "x" * 121, "y")
    shown = np.zeros((10, 8, 8, 1), np.uint8)
    arrays = data.InMemory({"train": (shown, np.arange(10))}, class_names=names)
    monkeypatch.setattr(f"{__name__}.similar", lambda: arrays, raising=False)
    config = denoising_config(
        data_dir, {f"data.{split}_split": "train" for split in ("train", "test")}
    )
    config.data.name = f"{__name__}:similar"
    paths = [path.name for path, _ in anomaly.held_out_runs(config, tmp_path, None)]
    assert paths[:6] == [
        "held_out_0_C",
        "held_out_1_C",
        "held_out_2_C",
        "held_out_3_Java",
        "held_out_4_c",
        "held_out_5__",
    ]
    assert len({path.casefold() for path in paths}) == 10
    (only,) = anomaly.held_out_runs(config, tmp_path, ["C++"])
    assert only[0].name == "held_out_1_C"


@pytest.mark.long
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


def test_runs_without_anomalies_are_refused(runs, data_dir, tmp_path):
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
    with pytest.raises(ValueError, match="'classification' reconstructs no images"):
        denoising.score_anomalies(bad, mesh=parallel.data_mesh())
    with pytest.raises(ValueError, match="'classification' reconstructs no images: hold classes"):
        next(anomaly.train_held_out(small_config(data_dir), tmp_path, None))
    with pytest.raises(ValueError, match="--held_out: there is no class 'eight'"):
        next(anomaly.train_held_out(config, tmp_path, ["eight"]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "--held_out names no class: give some, or 'each'"),
        (["8", "8"], "--held_out=8,8 names class '8' twice"),
        (["1", "2", "1"], "names class '1' twice"),
        (["8", ""], "--held_out: there is no class ''"),
    ],
)
def test_invalid_held_out_classes_are_named(data_dir, tmp_path, classes, message):
    with pytest.raises(ValueError, match=message):
        next(anomaly.train_held_out(denoising_config(data_dir), tmp_path, classes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise.std": 0.2}, r"noise.std: 0.3 there, 0.2 now"),
        ({"data.train_split": "train[:400]"}, r"data.train_split: .* 'train\[:400\]' now"),
        ({"duration": "1 steps"}, "duration"),
        ({"seed": 7}, "seed: 0 there, 7 now"),
    ],
)
def test_runs_of_another_config_are_not_reported(runs, changes, message):
    config, path, _ = runs
    other = copy.deepcopy(config)
    other.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=f"contains a run of another config.*{message}"):
        next(anomaly.train_held_out(other, path, ["8"]))


def test_the_floor_uses_the_split_that_was_learned(runs):
    _, _, (directory,) = runs
    changed = training.read_config(directory)
    changed.data.train_split = "train[:60]"
    ours, other = (anomaly.detect(directory, config) for config in (None, changed))
    assert ours.nearest.auroc == other.nearest.auroc
    np.testing.assert_array_equal(ours.nearest.thresholds, other.nearest.thresholds)


@pytest.mark.parametrize(
    ("test_split", "train_split", "shared"),
    [
        ("train", None, 200),
        ("test+train[195:210]", None, 5),
        ("train[:100]", "test", 100),  # the split of the run counts, not of the config
    ],
)
def test_training_images_are_refused_as_normal_examples(runs, test_split, train_split, shared):
    _, _, (directory,) = runs
    changed = training.read_config(directory)
    changed.data.test_split = test_split
    changed.data.train_split = train_split or changed.data.train_split
    with pytest.raises(ValueError, match=f"of digits shares {shared} images with the training"):
        anomaly.detect(directory, changed)


def test_copies_of_training_images_are_refused_under_another_name(runs, data_dir, monkeypatch):
    _, _, (directory,) = runs
    learned = data.load("digits", split="train[190:210]", data_dir=data_dir, cache=True)
    arrays = np.stack([learned[i]["image"] for i in range(20)]), learned.labels
    copied = data.InMemory({"test": arrays}, class_names=learned.class_names)
    monkeypatch.setattr(sys.modules[__name__], "copied", lambda: copied, raising=False)
    changed = training.read_config(directory)
    changed.data.name = f"{__name__}:copied"
    with pytest.raises(ValueError, match=f"of {__name__}:copied shares 10 images with the trai"):
        anomaly.detect(directory, changed)


def test_held_out_classes_without_test_images_are_named(data_dir, tmp_path, monkeypatch):
    """Training has held them out, too, even if the test split has none."""
    tested = data.load("digits", split="test", data_dir=data_dir, cache=True)
    learned = data.load("digits", split="train", data_dir=data_dir, cache=True)
    kept = np.flatnonzero(tested.labels != 8)[:100]
    arrays = {
        name: (np.stack([part[i]["image"] for i in chosen]), part.labels[chosen])
        for name, part, chosen in (("train", learned, np.arange(200)), ("test", tested, kept))
    }
    without_8 = data.InMemory(arrays, class_names=learned.class_names)
    monkeypatch.setattr(sys.modules[__name__], "without_8", lambda: without_8, raising=False)
    changes = {"task.held_out_classes": ("8", "3"), "data.name": f"{__name__}:without_8"}
    config = denoising_config(data_dir, changes | {"duration": "1 steps"})
    training.train(config, tmp_path)
    detection = anomaly.detect(tmp_path)
    assert detection.held_out == ("3", "8")
    assert detection.curve.anomalous == (tested.labels[kept] == 3).sum()


def test_a_split_without_training_images_is_scored(runs):
    _, _, (directory,) = runs
    changed = training.read_config(directory)
    changed.data.test_split = "train[200:]+test"
    assert anomaly.detect(directory, changed).curve.normal > 900


def test_tables_say_why_an_interval_is_missing(runs):
    _, _, (directory,) = runs
    changed = training.read_config(directory)
    changed.data.test_split = "test[:60]"
    few = anomaly.detect(directory, changed)
    assert 2 <= few.curve.anomalous < 10
    (entry,) = anomaly.content([few])
    curve = entry["reconstruction_error"]
    assert (curve["interval"], curve["no_interval"]) == (None, "too few for an interval")
    (area, *_), _ = (list(column.cells) for column in anomaly.tables([few])[0].columns[1:3])
    assert area == f"{curve['auroc']:.3f} (too few for an interval)"


def test_a_report_is_only_replaced_by_one_of_the_same_runs_and_data(runs, tmp_path):
    config, path, (directory,) = runs
    ours = directory, training.read_config(directory)
    anomaly.require_own(tmp_path / "missing", [ours], named="--out")
    (tmp_path / "anomaly.svg").write_text("<svg/>")
    with pytest.raises(FileExistsError, match=r"--out contains another report \(anomaly.svg\)"):
        anomaly.require_own(tmp_path, [ours], named="--out")
    anomaly.write(tmp_path, [anomaly.detect(directory)])
    anomaly.require_own(tmp_path, [ours], named="--out")
    more = anomaly.held_out_runs(config, path, ["3", "8"])
    anomaly.require_own(tmp_path, more, named="--out")
    other = training.read_config(directory)
    other.data.test_split = "test[:60]"
    for changed in (directory, other), (path / "another", config), more[0]:
        with pytest.raises(FileExistsError, match="would be overwritten: choose another directory"):
            anomaly.require_own(tmp_path, [changed], named="--out")
    assert len(list(tmp_path.iterdir())) == 3


def weights_config(data_dir, source, held_out=("8",)):
    changes = {"weights": str(source), "weights_head": "fresh"}
    config = denoising_config(data_dir, {"task.held_out_classes": held_out, "duration": "1 steps"})
    config.update_from_flattened_dict(changes)
    return config


def test_weights_that_know_held_out_classes_are_refused(runs, data_dir, tmp_path):
    _, _, (directory,) = runs
    classifier = small_config(data_dir)
    classifier.model.dim = 8
    classifier.duration = "1 steps"
    training.train(classifier, tmp_path / "classifier")
    (tmp_path / "w.safetensors").write_bytes(b"anything")
    for source, held_out, message in (
        (directory, ("3",), r"from the held-out '3' \(that run held out '8'\); start from a run"),
        (directory, (8, 9), r"from the held-out '9' \(that run held out '8'\)"),
        (directory / "checkpoints" / "2", ("8", "1"), r"from the held-out '1'"),
        (tmp_path / "classifier", ("8",), "that run held out no class"),
        (tmp_path / "w.safetensors", ("8",), "their training data are unknown"),
    ):
        experiment = training.build(weights_config(data_dir, source, held_out))
        with pytest.raises(ValueError, match=message):
            experiment.task.check()
    for held_out in (("8",), (8,)):
        training.build(weights_config(data_dir, directory, held_out)).task.check()
    config = weights_config(data_dir, tmp_path / "classifier", ())
    training.build(config).task.check()  # nothing is held out, so any weights do
