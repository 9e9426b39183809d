"""Audits of images with several labels, or of some classes only: one rule for all numbers."""

import dataclasses
import functools

import numpy as np
import pytest

from pnoise_jax import data, evaluation, noise, parallel, studies
from pnoise_jax.evaluation import Predictions, metrics
from pnoise_jax.studies.leak.audit import conclude
from pnoise_jax.studies.leak.audited.audited_model import AuditedModel
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.audited.labels import as_label_sets
from pnoise_jax.studies.leak.checks.orders import SHUFFLED
from pnoise_jax.studies.leak.measure import measure
from pnoise_jax.studies.leak.settings import AuditSettings
from tests.models.drawing import draw_variables
from tests.studies.leak.test_audited import Dense

CLASSES, OCCURRING = 20, np.array([2, 3, 7, 11, 13])
SETTINGS = AuditSettings(batch_sizes=(10,), orders=20, purity_steps=3, resamples=200)


@pytest.fixture(scope="module")
def dataset():
    """100 images of 5 of the 20 classes; each second image has another label, too."""
    generator = np.random.default_rng(3)
    labels = generator.permutation(np.repeat(OCCURRING, 20)).astype(np.int32)
    images = generator.integers(0, 200, (100, 4, 4, 1), np.uint8)
    images[:, :2] += (3 * labels).astype(np.uint8)[:, None, None, None]
    sets = np.stack([labels, np.full(100, -1, np.int32)], axis=1)
    sets[::2, 1] = (labels[::2] + 1) % CLASSES
    return data.Dataset(
        "several",
        "test",
        CLASSES,
        (4, 4, 1),
        labels,
        images,
        label_sets=sets,
        occurring=np.unique(sets[sets >= 0]),
    )


@functools.lru_cache(maxsize=2)
def restricted(dataset):
    return dataset.restricted()


@functools.lru_cache(maxsize=4)
def audit(dataset):
    """An audit with the optimal matrix, and the logits of the clean model."""
    injection = noise.Injection(noise.LinearTransform(noise.Optimal()), inference=True)
    model = Dense(num_classes=CLASSES, injection=injection)
    variables = draw_variables(model, np.zeros((1, 4, 4, 1), np.float32))
    audited = AuditedNoise.of(injection, model.num_layers)
    options = {"mesh": parallel.data_mesh(), "mean": (0.5,), "std": (0.5,)}
    subject = AuditedModel(model, variables, dataset, noises=(audited,), seed=0, **options)
    logits, _ = subject.clean()
    settings = SETTINGS.for_labels(dataset.labels, "the data")
    measured = measure(
        [subject],
        dataset.labels,
        (audited,),
        settings,
        report=lambda line: None,
        metric=metrics.accuracy,
        label_sets=dataset.label_sets,
    )
    origin = {"split": None, "steps": None, "config": None, "command": None, "notes": []}
    result = conclude(
        measured, settings, model="dense", dataset="several", class_names=None, origin=origin
    )
    return result, logits


@pytest.mark.parametrize("restricts", [False, True])
def test_all_numbers_of_an_audit_count_the_same_as_correct(dataset, restricts):
    dataset = restricted(dataset) if restricts else dataset
    result, logits = audit(dataset)
    labels, sets, measured = dataset.labels, dataset.label_sets, result.measured
    clean = Predictions.of(logits, labels, sets)
    rows = {(row["noise"], row["order"]): row for row in result.rows}
    assert rows[False, "shuffled"]["top1"] == pytest.approx(clean.summary()["top1"])
    assert rows[False, "shuffled"]["top1"] > 100 * np.mean(logits.argmax(1) == labels)
    (cell,) = measured.cells
    for kind, scores in cell.orders.items():  # the metric is accuracy, computed in another way
        np.testing.assert_allclose(scores.metric, scores.top1, rtol=1e-9, err_msg=kind)
        assert scores.share.mean() == pytest.approx(scores.top1.mean() / 100)
    for composition in (cell.shuffled, cell.class_sorted, *cell.sweep):
        for predictions in composition.predictions:
            right = evaluation.is_correct(predictions.predicted, labels, sets)
            np.testing.assert_array_equal(predictions.rank < 1, right)
        right = evaluation.is_correct(composition.votes, labels, sets)
        if composition is cell.class_sorted:
            share = rows[True, "class_sorted"]["batch_vote_top1"]
            assert share == pytest.approx(100 * right.mean())
    # Sorted by the original label, whatever else counts as correct.
    in_order = labels[np.argsort(cell.class_sorted.batches, kind="stable")]
    assert (np.diff(in_order) >= 0).all()
    assert result.content["num_classes"] == dataset.num_classes == (9 if restricts else 20)
    assert len(result.content["per_class"]) == 5


def test_an_audit_without_label_sets_gives_other_numbers(dataset, tmp_path):
    """The accuracy is lower, and no sets are stored."""
    with_sets, _ = audit(dataset)
    without, _ = audit(dataclasses.replace(dataset, label_sets=None))
    tops = [
        result.measured.cells[0].orders[SHUFFLED].top1.mean() for result in (with_sets, without)
    ]
    assert tops[0] > tops[1]
    for result, is_there in ((with_sets, True), (without, False)):
        result.write(tmp_path / str(is_there))
        with np.load(tmp_path / str(is_there) / "predictions.npz") as arrays:
            assert ("label_sets" in arrays) == is_there


# Audits of functions


def answers(dataset):
    """Some right, some right by the other label of an image, some wrong."""
    number = np.arange(100)
    return (dataset.labels + (number % 4 == 0) + 7 * (number % 5 == 0))[:, None] % CLASSES


def of_function(dataset, **options):
    """An audit of a function whose inputs are its answers."""

    def apply(batch):
        return np.eye(CLASSES, dtype=np.float32)[np.asarray(batch)[:, 0].astype(int)]

    examples = options.pop("examples", (answers(dataset), dataset.labels))
    result = studies.audit(apply, examples, clean=apply, settings=SETTINGS, **options)
    return result, apply(answers(dataset))


@pytest.mark.parametrize("kind", ["array", "lists", "batches"])
def test_a_function_is_scored_by_sets_of_labels(dataset, kind):
    sets = dataset.label_sets
    options = {
        "array": {"label_sets": sets},
        "lists": {"label_sets": [[*reversed(row[row >= 0].tolist())] for row in sets]},
        "batches": {
            "examples": [
                {
                    "x": answers(dataset)[part],
                    "label": dataset.labels[part],
                    "label_set": sets[part],
                }
                for part in (slice(0, 60), slice(60, 100))
            ]
        },
    }[kind]
    result, logits = of_function(dataset, **options)
    expected = Predictions.of(logits, dataset.labels, sets).summary()["top1"]
    plain, _ = of_function(dataset)
    clean = [next(r for r in a.rows if not r["noise"])["top1"] for a in (result, plain)]
    assert clean == [pytest.approx(expected), pytest.approx(60)]
    assert expected == 80
    assert result.content["measurement"] != plain.content["measurement"]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([[1]] * 99, "label_sets: got 99 of them; give one for each of the 100 examples"),
        (7, "label_sets: got int; give one for each of the 100"),
        ([[1]] * 99 + [[]], "the set of example 99 is empty, so no prediction would be cor"),
        ([[1]] * 99 + [[-1, -1]], "the set of example 99 is empty"),
        ([[1]] * 99 + [[0.5]], r"the set of example 99 is \[0.5\]; give class numbers"),
        ([1] * 100, "the set of example 0 is 1; give class numbers"),
        ([[-2]] * 100, "the set of example 0 has the label -2"),
        ([[CLASSES]] * 100, "label 20: clean returns 20 logits"),
    ],
)
def test_invalid_sets_of_labels_are_refused(dataset, sets, message):
    with pytest.raises(ValueError, match=message):
        of_function(dataset, label_sets=sets)


def test_sets_of_labels_and_labels_by_name_are_refused(dataset):
    names = [f"class {number}" for number in range(CLASSES)]
    examples = (answers(dataset), [names[i] for i in dataset.labels])
    with pytest.raises(ValueError, match="label_sets are numbers of columns of the logits, but th"):
        of_function(dataset, examples=examples, class_names=names, label_sets=dataset.label_sets)
    batch = {"x": answers(dataset), "y": dataset.labels, "label_set": dataset.label_sets}
    with pytest.raises(ValueError, match='the batches have "label_set", too; give one of the two'):
        of_function(dataset, examples=[batch], label_sets=dataset.label_sets)


def test_multi_hot_sets_are_refused():
    """Their zeros and ones would be read as classes 0 and 1."""
    for classes in (2, 3, 5):  # with two, every set would hold both classes
        with pytest.raises(ValueError, match=r"looks multi-hot: give class numbers"):
            as_label_sets(np.eye(classes, dtype=int), classes)
    np.testing.assert_array_equal(as_label_sets([[0, 1], [1]], 2), [[0, 1], [1, -1]])
