"""The audit of a function whose leak is known, against figures computed by hand."""

import json
import math

import numpy as np
import pytest

from pnoise_jax import data, evaluation, noise, studies
from pnoise_jax.evaluation import Estimate
from pnoise_jax.studies.leak import verdict
from pnoise_jax.studies.leak.measure import vote
from pnoise_jax.studies.leak.subjects import AuditedNoise

CLASSES, PER_CLASS = 4, 60
SETTINGS = studies.AuditSettings(batch_sizes=(10, 30), purity_steps=3, resamples=300)


@pytest.fixture(scope="module")
def examples():
    """Noisy prototypes: one example alone is classified with difficulty, ten with ease."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat(np.arange(CLASSES), PER_CLASS)).astype(np.int32)
    images = np.eye(CLASSES)[labels] + generator.normal(0, 0.8, (len(labels), CLASSES))
    return images.astype(np.float32), labels


def clean(images):
    return 3 * images


def mixes(images):
    """The optimal quality matrix on the input: nearly the mean of the batch."""
    return clean((images + images.sum(0)) / (len(images) + 1))


@pytest.fixture(scope="module")
def found(examples):
    return studies.audit(mixes, examples, clean=clean, settings=SETTINGS, model="the prototype")


def row_of(audit, noisy, order, batch_size):
    wanted = (noisy, order, batch_size)
    (row,) = [r for r in audit.rows if (r["noise"], r["order"], r["batch_size"]) == wanted]
    return row


def by_hand(function, examples, order, batch_size):
    images, labels = examples
    predicted = np.empty_like(labels)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        predicted[rows] = function(images[rows]).argmax(1)
    return predicted


def test_the_grid_holds_every_protocol_clean_beside_noisy(found):
    protocols = [(r["noise"], r["order"], r["batch_size"]) for r in found.rows]
    assert sorted(protocols) == sorted(
        (noisy, order, size)
        for noisy in (False, True)
        for order in evaluation.ORDERS
        for size in (10, 30)
    )


@pytest.mark.parametrize("order_name", evaluation.ORDERS)
@pytest.mark.parametrize("batch_size", [10, 30])
def test_rows_are_what_numpy_finds(found, examples, order_name, batch_size):
    labels = examples[1]
    order = data.evaluation_order(labels, order_name, seed=0)
    row = row_of(found, True, order_name, batch_size)
    predicted = by_hand(mixes, examples, order, batch_size)
    assert row["top1"] == pytest.approx(100 * np.mean(predicted == labels))
    assert row["top1_by_seed"] == [row["top1"]]
    voted = by_hand(lambda x: clean(x).mean(0, keepdims=True), examples, order, batch_size)
    assert row["batch_vote_top1"] == pytest.approx(100 * np.mean(voted == labels))
    assert row["agreement"] == pytest.approx(100 * np.mean(voted == predicted))
    alone = row_of(found, False, order_name, batch_size)
    assert alone["top1"] == pytest.approx(100 * np.mean(clean(examples[0]).argmax(1) == labels))


def test_the_leak_is_found_and_said(found):
    (finding,) = found.content["findings"]
    assert finding["leaks"]
    assert finding["honest"] == "harm"
    assert found.verdict == finding["sentence"]
    for row in (
        row_of(found, False, "shuffled", 10),
        row_of(found, True, "shuffled", 10),
        row_of(found, True, "class_sorted", 10),
    ):
        assert f"{row['top1']:.1f} %" in found.verdict
    assert row_of(found, True, "class_sorted", 10)["label_bits_per_batch"] == pytest.approx(
        9 * math.log2(CLASSES)
    )


def test_comparisons_are_paired_differences_of_the_rows(found):
    assert len(found.content["comparisons"]) == 6
    tops = {
        "clean": row_of(found, False, "shuffled", 10)["top1"],
        "noisy, shuffled": row_of(found, True, "shuffled", 10)["top1"],
        "noisy, class-sorted": row_of(found, True, "class_sorted", 10)["top1"],
    }
    for comparison in found.content["comparisons"][:3]:
        expected = tops[comparison["of"]] - tops[comparison["against"]]
        assert comparison["difference"] == pytest.approx(expected)
        low, high = comparison["interval"]
        assert low <= comparison["difference"] <= high


def test_accuracy_rises_with_purity_alone(found):
    sweep = found.content["purity"]
    assert [s["mixed_share"] for s in sweep] == [0, 0.5, 1]
    for column in ("purity", "label_bits_per_batch", "top1", "batch_vote_top1"):
        assert sweep[0][column] > sweep[1][column] > sweep[2][column]
    assert sweep[0]["top1"] == row_of(found, True, "class_sorted", 10)["top1"]


def test_classes_are_counted(found, examples):
    per_class = found.content["per_class"]
    assert [c["n"] for c in per_class] == [PER_CLASS] * CLASSES
    for column, row in [
        ("clean", row_of(found, False, "shuffled", 10)),
        ("class_sorted", row_of(found, True, "class_sorted", 10)),
    ]:
        assert np.mean([c[column] for c in per_class]) == pytest.approx(row["top1"])


def test_one_image_at_a_time_stands_in_for_the_clean_function(examples):
    alone = studies.audit(mixes, examples, settings=SETTINGS)
    assert alone.content["clean_check"] is None  # nothing stood beside the image
    assert row_of(alone, False, "shuffled", 10)["top1"] == pytest.approx(
        100 * np.mean(clean(examples[0]).argmax(1) == examples[1])
    )  # in a batch of one the optimal matrix is the identity


def test_noise_that_mixes_nothing_does_not_leak(examples):
    found = studies.audit(clean, examples, clean=clean, settings=SETTINGS)
    (finding,) = found.content["findings"]
    assert (finding["leaks"], finding["honest"]) == (False, "no effect")
    assert "shows no leak here" in found.verdict  # the function was not said to mix nothing
    assert "no effect that shows" in found.verdict
    assert "the order makes no difference that shows" in found.verdict


def test_a_noise_that_mixes_nothing_is_said_not_to_leak():
    nothing = Estimate(0.0, (0.0, 0.0), 1.0)
    tops = {"clean": 76.1, "shuffled": 76.1, "class_sorted": 76.1}
    finding = verdict.judge(
        name="Gaussian noise",
        mixes_batch=False,
        batch_size=10,
        **tops,
        honest=nothing,
        leak=nothing,
    )
    assert finding.sentence.startswith("Gaussian noise mixes no examples, so nothing can leak: in")
    assert not finding.leaks


def test_noises_that_differ_have_different_names():
    transforms = [noise.LinearTransform(noise.CyclicShift(0.4, shift)) for shift in (1, -1)] + [
        noise.LinearTransform(noise.CyclicShift(0.4), group_size=5)
    ]
    kinds = [*transforms, noise.SaltAndPepper(0.4), noise.SaltAndPepper(0.4, extremes="batch")]
    kinds += [noise.Gaussian(strength=0.4), noise.Gaussian(strength=0.4, std=5)]
    injections = [noise.Injection(kind) for kind in kinds]
    injections += [noise.Injection(kinds[0], layer=layer) for layer in ("random", (1, 2, 3, 4))]
    audited = [AuditedNoise.of(injection, 4) for injection in injections]
    assert len({a.name for a in audited}) == len(audited)
    assert "shift -1" in audited[1].words
    assert "one of layers 1 to 4 at random" in audited[-2].name
    assert [a.group_size for a in audited[:4]] == [None, None, 5, None]


def test_everything_is_written(found, examples, tmp_path):
    names = {path.name for path in found.write(tmp_path / "deep" / "audit")}
    assert names == {path.name for path in (tmp_path / "deep" / "audit").iterdir()}
    assert {"audit.json", "audit.csv", "audit.html", "predictions.npz"} < names
    stored = json.loads((tmp_path / "deep" / "audit" / "audit.json").read_text())
    assert stored["verdict"] == found.verdict
    with np.load(tmp_path / "deep" / "audit" / "predictions.npz") as arrays:
        rank = arrays["the noise of the prototype, class_sorted, 10/rank"]
        assert 100 * np.mean(rank == 0) == row_of(found, True, "class_sorted", 10)["top1"]
        np.testing.assert_array_equal(arrays["labels"], examples[1])


def test_a_vote_is_of_the_mean_logit():
    logits = np.array([[0, 3], [2, 0], [2, 0], [9, 0]], np.float32)
    assert vote(logits, np.array([0, 0, 1, 0])).tolist() == [0, 0, 0, 0]
    assert vote(logits, np.array([1, 1, 1, 0])).tolist() == [0, 0, 0, 0]
    assert vote(logits, np.array([0, 0, 1, 1])).tolist() == [1, 1, 0, 0]


def test_a_clean_function_that_looks_at_the_batch_is_no_reference(examples):
    with pytest.raises(ValueError, match="clean model of seed 0 is no reference"):
        studies.audit(mixes, examples, clean=mixes, settings=SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": (300,)}, r"batch_sizes=300: the data has only 240 examples"),
        ({"batch_sizes": (10, 61)}, r"batch_sizes=61: class-sorted batches of one class are imp"),
        ({"batch_sizes": (1,)}, "in a batch of 1 nothing is mixed"),
        ({"batch_sizes": (10, 10)}, "one of them comes twice"),
        ({"batch_sizes": ()}, r"batch_sizes=\(\): give a tuple of some"),
        ({"batch_sizes": 10}, "batch_sizes=10: give a tuple"),
        ({"batch_sizes": (50,)}, "fewer than 5 batches"),
        ({"seed": -1}, "seed=-1: give a whole number"),
        ({"resamples": 150.5}, "resamples=150.5: give a whole number"),
        ({"interval": "seeds"}, "needs at least 2 seeds, and there is 1"),
        ({"interval": "weeks"}, "choose one of 'auto', 'seeds', 'batches'"),
        ({"confidence": 95}, "confidence=95: give a number between 0 and 1"),
        ({"resamples": 10}, "resamples=10: give a whole number of at least 100"),
        ({"purity_steps": 1}, "purity_steps=1: give a whole number of at least 2"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message, examples):
    with pytest.raises(ValueError, match=message):
        studies.audit(mixes, examples, settings=studies.AuditSettings(**settings))


def test_batches_larger_than_a_class_are_allowed_on_request(examples):
    settings = studies.AuditSettings(
        batch_sizes=(40,), mixed_batches=True, purity_steps=0, resamples=100
    )
    found = studies.audit(mixes, examples, clean=clean, settings=settings)
    assert row_of(found, True, "class_sorted", 40)["purity"] < 1
    assert found.content["purity"] == []


def test_default_batch_sizes_hold_one_class():
    settings = studies.AuditSettings()
    assert settings.for_labels(np.repeat(np.arange(5), 60), "").batch_sizes == (10, 50)
    assert settings.for_labels(np.repeat(np.arange(5), 4), "").batch_sizes == (4,)
    for few in (np.arange(50), np.array([0, 0, 1, 1])):
        with pytest.raises(ValueError, match="needs classes of at least 2 and 10 examples"):
            settings.for_labels(few, "the data")


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ((np.ones((3, 4)), np.array([0, 1])), r"images of shape \(3, 4\) and labels of shape \(2,"),
        ((np.ones((3, 4)), 3), r"labels of shape \(\)"),
        ((np.ones((2, 4)), np.array([0.0, 1.0])), "labels are float64"),
        ((np.ones((2, 4)), np.array([-1, 1])), "from -1"),
    ],
)
def test_examples_that_do_not_fit_are_named(examples, message):
    with pytest.raises(ValueError, match=message):
        studies.audit(mixes, examples)


def test_outputs_that_are_no_logits_are_named(examples):
    with pytest.raises(ValueError, match=r"apply gave an array of shape \(10,\) for a batch of 10"):
        studies.audit(lambda x: x.sum(1), examples, clean=clean, settings=SETTINGS)


def test_logits_that_do_not_fit_the_labels_are_named(examples):
    images, labels = examples

    def broken(x):  # NaN for one example
        return np.where(np.arange(len(x))[:, None] == 3, np.nan, x) if len(x) > 1 else x

    with pytest.raises(ValueError, match="label 3: apply gives 3 logits"):
        studies.audit(lambda x: x[:, :3], (images, labels), settings=SETTINGS)
    with pytest.raises(ValueError, match=r"shape \(10, 3\) .* expected logits \(10, 4\)"):
        studies.audit(lambda x: x[:, :3], (images, labels), clean=clean, settings=SETTINGS)
    with pytest.raises(ValueError, match=r"not finite for example \d+"):
        studies.audit(broken, (images, labels), settings=SETTINGS)


@pytest.mark.parametrize(
    ("honest", "leak", "kind", "leaks", "words"),
    [
        ((-50, -52, -48), (70, 68, 72), "harm", True, ["reads labels", "costs 50.0 points (48.0"]),
        ((2, 1, 3), (10, 8, 12), "gain", True, ["gains 2.0 points", "is worth 10.0 points"]),
        (
            (0.1, -1, 1.2),
            (0.0, -1, 1),
            "no effect",
            False,
            ["no effect that shows (+0.1", "includes 0"],
        ),
        ((-3, -4, -2), (-2, -3, -1), "harm", False, ["does worse on a class-sorted", "costs 2.0"]),
    ],
)
def test_the_verdict_follows_the_intervals(honest, leak, kind, leaks, words):
    finding = verdict.judge(
        name="the optimal quality matrix",
        mixes_batch=True,
        batch_size=10,
        clean=76.1,
        shuffled=25.1,
        class_sorted=98.8,
        honest=Estimate(honest[0], honest[1:], 0.5),
        leak=Estimate(leak[0], leak[1:], 0.5),
    )
    assert (finding.honest, finding.leaks) == (kind, leaks)
    for text in words:
        assert text in finding.sentence
    assert finding.sentence[0].isupper()
