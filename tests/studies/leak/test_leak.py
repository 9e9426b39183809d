"""The audit of a function whose leak is known, against figures computed by hand."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy

from pnoise_jax import data, evaluation, noise, studies
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.checks.orders import Orders
from pnoise_jax.studies.leak.measure import vote

CLASSES, PER_CLASS = 4, 60
SETTINGS = studies.AuditSettings(batch_sizes=(10, 30), orders=20, purity_steps=3, resamples=300)


@pytest.fixture(scope="module")
def examples():
    """Noisy prototypes: a single example is hard to classify, ten together are easy."""
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
def leak_audit(examples):
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


def test_the_rows_contain_every_protocol_clean_and_noisy(leak_audit):
    protocols = [(r["noise"], r["order"], r["batch_size"]) for r in leak_audit.rows]
    assert sorted(protocols) == sorted(
        (noisy, order, size)
        for noisy in (False, True)
        for order in evaluation.ORDERS
        for size in (10, 30)
    )


@pytest.mark.parametrize("order_name", evaluation.ORDERS)
@pytest.mark.parametrize("batch_size", [10, 30])
def test_rows_equal_those_computed_with_numpy(leak_audit, examples, order_name, batch_size):
    labels = examples[1]
    settings = SETTINGS.for_labels(labels, "")
    orders = Orders.of(labels, settings).by_kind[order_name]
    assert len(orders) == {"shuffled": 20, "class_sorted": 1}[order_name]
    first = data.evaluation_order(labels, order_name, seed=0)
    np.testing.assert_array_equal(orders[0], first)
    row = row_of(leak_audit, True, order_name, batch_size)
    predicted = [by_hand(mixes, examples, order, batch_size) for order in orders]
    assert row["top1"] == pytest.approx(100 * np.mean(np.array(predicted) == labels))
    assert row["top1_by_seed"] == pytest.approx([row["top1"]])
    printed = [
        evaluation.published_meter(evaluation.in_batches_of(labels, p, order, batch_size))
        for p, order in zip(predicted, orders, strict=True)
    ]
    assert row["printed"] == pytest.approx(np.mean(printed))
    voted = by_hand(lambda x: clean(x).mean(0, keepdims=True), examples, first, batch_size)
    assert row["batch_vote_top1"] == pytest.approx(100 * np.mean(voted == labels))
    clean_row = row_of(leak_audit, False, order_name, batch_size)
    assert clean_row["top1"] == pytest.approx(100 * np.mean(clean(examples[0]).argmax(1) == labels))


def test_orders_are_sorted_as_their_names_say(examples):
    labels = examples[1]
    settings = SETTINGS.for_labels(labels, "")
    orders = Orders.of(labels, settings)
    predicted = clean(examples[0]).argmax(1)
    by_kind = orders.with_predictions(predicted, settings)
    for kind, of_kind in by_kind.items():
        assert all(sorted(order) == list(range(len(labels))) for order in of_kind), kind
    permuted = by_kind["class_sorted, files permuted"]
    assert len(permuted) == 10
    assert all(np.all(np.diff(labels[order]) >= 0) for order in permuted)
    assert not np.array_equal(permuted[0], permuted[1])
    by_prediction = by_kind["sorted by own clean predictions"]
    assert all(np.all(np.diff(predicted[order]) >= 0) for order in by_prediction)
    np.testing.assert_array_equal(by_kind["as given"], [np.arange(len(labels))])
    assert "as given" not in Orders.of(np.sort(labels), settings).by_kind


def test_the_leak_is_found_and_described(leak_audit):
    assert leak_audit.verdict.kind == "leak"
    assert leak_audit.verdict.kinds == ("leak", "harm")
    assert str(leak_audit.verdict) == leak_audit.content["verdict"]["text"]
    orders = {(o["batch_size"], o["order"]): o for o in leak_audit.content["orders"]}
    size = leak_audit.verdict.batch_size
    for kind in ("shuffled", "class_sorted, files permuted", "sorted by own clean predictions"):
        assert f"{orders[size, kind]['top1']:.1f} %" in leak_audit.verdict.text
    assert f"{row_of(leak_audit, False, 'shuffled', 10)['top1']:.1f} %" in leak_audit.verdict.text
    assert row_of(leak_audit, True, "class_sorted", 10)["label_bits_per_batch"] == pytest.approx(
        9 * math.log2(CLASSES)
    )


def test_comparisons_are_paired_differences_of_the_rows(leak_audit):
    assert len(leak_audit.content["comparisons"]) == 6
    tops = {
        "clean": row_of(leak_audit, False, "shuffled", 10)["top1"],
        "noisy, shuffled": row_of(leak_audit, True, "shuffled", 10)["top1"],
        "noisy, class-sorted": row_of(leak_audit, True, "class_sorted", 10)["top1"],
    }
    for comparison in leak_audit.content["comparisons"][:3]:
        expected = tops[comparison["of"]] - tops[comparison["against"]]
        assert comparison["difference"] == pytest.approx(expected)
        low, high = comparison["interval"]
        assert low <= comparison["difference"] <= high
        assert comparison["p_adjusted"] >= comparison["p_value"]


def test_accuracy_rises_with_purity(leak_audit):
    sweep = leak_audit.content["purity"]
    assert [s["mixed_share"] for s in sweep] == [0, 0.5, 1]
    for column in ("purity", "label_bits_per_batch", "top1", "batch_vote_top1"):
        assert sweep[0][column] > sweep[1][column] > sweep[2][column]
    assert sweep[0]["top1"] == row_of(leak_audit, True, "class_sorted", 10)["top1"]


def test_classes_are_counted(leak_audit, examples):
    per_class = leak_audit.content["per_class"]
    assert [c["n"] for c in per_class] == [PER_CLASS] * CLASSES
    for column, row in [
        ("clean", row_of(leak_audit, False, "shuffled", 10)),
        ("class_sorted", row_of(leak_audit, True, "class_sorted", 10)),
    ]:
        assert np.mean([c[column] for c in per_class]) == pytest.approx(row["top1"])


def test_single_images_replace_a_missing_clean_function(examples):
    audit = studies.audit(mixes, examples, settings=SETTINGS)
    assert audit.content["clean_check"] is None  # a single image has no mates
    assert row_of(audit, False, "shuffled", 10)["top1"] == pytest.approx(
        100 * np.mean(clean(examples[0]).argmax(1) == examples[1])
    )  # in a batch of one the optimal matrix is the identity


def test_a_function_of_single_examples_is_proven_independent(examples):
    audit = studies.audit(clean, examples, clean=clean, settings=SETTINGS)
    assert audit.verdict.kinds == ("independent",)  # 240 examples cannot show no_effect
    checked = audit.verdict.evidence["dependence"]
    assert checked["independent"]
    assert checked["examples"] == 240
    assert checked["changed"] == 0
    (order,) = [
        c
        for c in audit.content["comparisons"]
        if (c["of"], c["against"]) == ("noisy, class-sorted", "noisy, shuffled")
        and c["batch_size"] == 10
    ]
    assert (order["difference"], order["interval"]) == (0, [0, 0])  # known, not estimated


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


def test_everything_is_written(leak_audit, examples, tmp_path):
    names = {path.name for path in leak_audit.write(tmp_path / "deep" / "audit")}
    assert names == {path.name for path in (tmp_path / "deep" / "audit").iterdir()}
    assert {"audit.json", "audit.csv", "audit.html", "predictions.npz"} < names
    stored = json.loads((tmp_path / "deep" / "audit" / "audit.json").read_text())
    assert stored["verdict"] == json.loads(json.dumps(leak_audit.verdict.to_dict()))
    with np.load(tmp_path / "deep" / "audit" / "predictions.npz") as arrays:
        rank = arrays["the prototype, class_sorted, 10/rank"]
        assert 100 * np.mean(rank == 0) == row_of(leak_audit, True, "class_sorted", 10)["top1"]
        np.testing.assert_array_equal(arrays["labels"], examples[1])

    leak_audit.write(tmp_path / "deep" / "audit")  # the same again
    other = dataclasses.replace(
        leak_audit, content=leak_audit.content | {"measurement": "of another"}
    )
    with pytest.raises(FileExistsError, match="holds another audit"):
        other.write(tmp_path / "deep" / "audit")
    assert json.loads((tmp_path / "deep" / "audit" / "audit.json").read_text()) == stored


def test_audits_of_two_functions_with_one_reference_are_told_apart(examples):
    def identity(apply):
        settings = dataclasses.replace(SETTINGS, purity_steps=0)
        audit = studies.audit(apply, examples, clean=clean, settings=settings)
        return audit.content["measurement"]

    assert identity(mixes) == identity(mixes) != identity(clean)


def test_a_vote_is_of_the_mean_logit():
    logits = np.array([[0, 3], [2, 0], [2, 0], [9, 0]], np.float32)
    assert vote(logits, np.array([0, 0, 1, 0])).tolist() == [0, 0, 0, 0]
    assert vote(logits, np.array([1, 1, 1, 0])).tolist() == [0, 0, 0, 0]
    assert vote(logits, np.array([0, 0, 1, 1])).tolist() == [1, 1, 0, 0]


def test_a_clean_function_that_depends_on_the_batch_is_refused(examples):
    with pytest.raises(ValueError, match="clean model of seed 0 cannot be the reference"):
        studies.audit(mixes, examples, clean=mixes, settings=SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": (300,)}, r"batch_sizes=300: the data has only 240 examples"),
        ({"batch_sizes": (10, 61)}, r"batch_sizes=61: class-sorted batches of one class are imp"),
        ({"batch_sizes": (1,)}, "in a batch of 1 nothing is mixed"),
        ({"batch_sizes": (10, 10)}, "one size is given twice"),
        ({"batch_sizes": ()}, r"batch_sizes=\(\): give a tuple of sizes"),
        ({"batch_sizes": 10}, "batch_sizes=10: give a tuple"),
        ({"batch_sizes": (50,)}, "fewer than 5 batches"),
        ({"seed": -1}, "seed=-1: give a whole number"),
        ({"resamples": 150.5}, "resamples=150.5: give a whole number"),
        ({"interval": "seeds"}, "needs at least 2 seeds, and there is 1"),
        ({"interval": "weeks"}, "choose one of 'auto', 'seeds', 'batches'"),
        ({"confidence": 95}, "confidence=95: give a number between 0 and 1"),
        ({"resamples": 10}, "resamples=10: give a whole number of at least 100"),
        ({"purity_steps": 1}, "purity_steps=1: give a whole number of at least 2"),
        ({"orders": 10}, "orders=10: give a whole number of at least 20"),
        ({"equivalence": 0}, "equivalence=0: give a number of points above 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message, examples):
    with pytest.raises(ValueError, match=message):
        studies.audit(mixes, examples, settings=studies.AuditSettings(**settings))


def test_batches_larger_than_a_class_are_allowed_on_request(examples):
    settings = studies.AuditSettings(
        batch_sizes=(40,), orders=20, mixed_batches=True, purity_steps=0, resamples=100
    )
    audit = studies.audit(mixes, examples, clean=clean, settings=settings)
    assert row_of(audit, True, "class_sorted", 40)["purity"] < 1
    assert audit.content["purity"] == []


def test_settings_may_be_numbers_of_numpy(examples, tmp_path):
    plain = {"orders": 20, "purity_steps": 2, "resamples": 100, "seed": 3, "confidence": 0.5}
    plain |= {"equivalence": 2.0, "batch_sizes": (10,)}
    settings = studies.AuditSettings(
        **{k: np.array(v)[()] for k, v in plain.items() if k != "batch_sizes"},
        batch_sizes=(np.int64(10),),
    )
    assert settings == studies.AuditSettings(**plain)
    studies.audit(clean, examples, clean=clean, settings=settings).write(tmp_path)


def test_default_batch_sizes_hold_one_class():
    settings = studies.AuditSettings()
    assert settings.for_labels(np.repeat(np.arange(5), 60), "").batch_sizes == (10, 50)
    assert settings.for_labels(np.repeat(np.arange(5), 4), "").batch_sizes == (4,)
    for few in (np.arange(50), np.array([0, 0, 1, 1])):
        with pytest.raises(ValueError, match="needs a class of at least 2, and at least 10 exam"):
            settings.for_labels(few, "the data")


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ((np.ones((3, 4)), np.array([0, 1])), r"inputs of shape \(3, 4\) and labels of shape \(2,"),
        ((np.ones((3, 4)), None), "there are no labels"),
        ((np.ones((2, 4)), np.array([0.0, 1.0])), "labels are float64, such as 0.0: give class"),
        ((np.ones((2, 4)), np.array([0.5, 1.0])), "an audit is of classification"),
        ((np.ones((2, 4)), np.array([-1, 1])), "labels go down to -1"),
        ((np.ones((2, 4)), np.array(["cat", "dog"])), "labels are names, such as 'cat': give"),
        ((np.ones((60, 4)), np.ones(60, int)), "all 60 examples of the data have the same label"),
        ((np.ones((1, 4)), np.ones(1, int)), "the data has 1 example, at most 1 of one class"),
        ((np.ones((6, 4)), np.arange(6) % 2), "needs a class of at least 2, and at least 10 exam"),
        ((np.ones((0, 4)), np.ones(0, int)), "there are none"),
    ],
)
def test_examples_that_do_not_fit_are_named(examples, message):
    with pytest.raises(ValueError, match=message):
        studies.audit(mixes, examples)


def test_labels_may_be_names(examples):
    images, labels = examples
    names = np.array(["ant", "bee", "cat", "dog"])
    named = studies.audit(
        mixes, (images, names[labels]), clean=clean, settings=SETTINGS, class_names=names
    )
    assert [c["name"] for c in named.content["per_class"]] == names.tolist()
    assert named.verdict.kind == "leak"
    with pytest.raises(ValueError, match="label 'cat' is not in class_names"):
        studies.audit(mixes, (images, names[labels]), class_names=["ant", "bee"])
    for unordered in (
        {"ant", "bee"},
        {0: "ant", 1: "bee"},
        "ab",
        iter(["ant", "bee"]),
        ["a", None],
    ):
        with pytest.raises(
            ValueError, match=r"class_names (is a (set|dict|str|list_it)|has None i)"
        ):
            studies.audit(mixes, examples, class_names=unordered)
    with pytest.raises(ValueError, match="label 3: class_names has 2 names"):
        studies.audit(mixes, examples, class_names=["ant", "bee"])


class Loader(list):
    """Batches of a data set that names its classes, as a loader of torchvision's ImageFolder."""

    def __init__(self, examples, classes):
        images, labels = examples
        super().__init__(
            (images[i : i + 10], labels[i : i + 10]) for i in range(0, len(labels), 10)
        )
        self.dataset = type("Part", (), {"dataset": type("Folder", (), {"classes": classes})})


def test_labels_are_matched_with_the_columns_by_name(examples):
    """If the examples number their classes differently from the model."""
    images, labels = examples
    columns = ["ant", "bee", "cat", "dog"]
    plain = studies.audit(mixes, Loader(examples, columns), clean=clean, class_names=columns)
    assert not any("by name" in note for note in plain.content["notes"])
    order = np.array([2, 0, 3, 1])  # of each column among the classes of the examples
    classes = [columns[i] for i in np.argsort(order)]
    loader = Loader((images, order[labels]), classes)
    audit = studies.audit(mixes, loader, clean=clean, class_names=columns)
    assert any(
        "in another order ('ant' is class 0 there and 2 here), so labels are matched by name"
        in note
        for note in audit.content["notes"]
    )
    np.testing.assert_array_equal(audit.measured.labels, plain.measured.labels)
    np.testing.assert_array_equal(audit.measured.clean[0].rank, plain.measured.clean[0].rank)
    other = studies.audit(mixes, loader, clean=clean)  # nothing says what the columns are
    assert (other.measured.labels == order[labels]).all()


@pytest.mark.parametrize("attribute", ["classes", "class_names"])
def test_examples_of_other_classes_are_refused(examples, attribute):
    loader = Loader(examples, None)
    setattr(loader, attribute, ["ant", "bee", "cat", "fox"])
    with pytest.raises(ValueError, match="'fox' of the latter is not among the 4 of the former"):
        studies.audit(mixes, loader, class_names=["ant", "bee", "cat", "dog"])


def test_numeric_names_are_compared_by_number(examples):
    loader = Loader(examples, ["0", "1", "2", "3"])
    audit = studies.audit(mixes, loader, clean=clean, class_names=["ant", "bee", "cat", "dog"])
    assert any("so labels are compared by number" in note for note in audit.content["notes"])


def test_the_order_of_a_loader_that_shuffles_is_that_of_its_first_pass(examples):
    images, labels = examples
    generator = np.random.default_rng(0)

    class Shuffling:
        def __iter__(self):
            order = generator.permutation(len(labels))
            return iter([(images[r], labels[r]) for r in np.split(order, 8)])

    shuffled = studies.audit(mixes, Shuffling(), clean=clean, settings=SETTINGS)
    fixed = studies.audit(
        mixes,
        list(zip(np.split(images, 8), np.split(labels, 8), strict=True)),
        clean=clean,
        settings=SETTINGS,
    )
    for audit in (shuffled, fixed):
        assert "as given" in {o["order"] for o in audit.content["orders"]}
    assert any("is that of the first pass" in note for note in shuffled.content["notes"])


@pytest.mark.parametrize(
    ("sizes", "audited", "note"),
    [
        ((12,) * 20, 12, None),
        ((25,) * 9 + (15,), 25, None),
        ((90, 90, 60), 10, None),  # too few batches
        ((20, 40) * 4, 10, "have 20 to 40 examples"),
        ((20,) * 8 + (80,), 10, "have 20 to 80 examples"),
    ],
)
def test_batches_are_as_large_as_those_of_the_loader(examples, sizes, audited, note):
    parts = (np.split(values, np.cumsum(sizes)[:-1]) for values in examples)
    audit = studies.audit(clean, zip(*parts, strict=True), clean=clean)
    assert {row["batch_size"] for row in audit.rows} == {audited}
    noted = [line for line in audit.content["notes"] if "loader's batches" in line]
    assert (note is None and not noted) or note in noted[0]


def test_a_loader_that_draws_balanced_batches_is_not_cleared():
    """As in few-shot episodes: the batches are drawn at random, and yet tell the labels."""
    classes, generator = 10, np.random.default_rng(0)
    labels = np.arange(600) % classes
    inputs = np.eye(classes)[labels] + generator.normal(0, 0.42, (600, classes))

    class Episodes:
        def __iter__(self):
            rows = [generator.permutation(np.flatnonzero(labels == c)) for c in range(classes)]
            return ((inputs[r], labels[r]) for r in np.stack(rows, axis=1))

    def one_of_each_class(batch):
        best = batch.argmax(axis=1)
        if len(batch) != classes or len(np.unique(best)) < classes - 1:
            return batch
        assigned = scipy.optimize.linear_sum_assignment(-batch)[1]
        return batch + 100 * np.eye(classes)[assigned]

    audit = studies.audit(one_of_each_class, Episodes(), clean=lambda batch: batch)
    given = audit.verdict.evidence["given_order"]
    assert given["value"] > given["highest"]
    assert audit.verdict.kind == "order_effect"
    assert "no intervention shows whether that is by the labels" in audit.verdict.text


def test_a_metric_that_depends_on_the_batches_is_reported(examples):
    averaged = evaluation.mean_over_batches(evaluation.METRICS["macro_f1"])
    for metric, depends in ((averaged, True), (evaluation.METRICS["macro_f1"], False)):
        audit = studies.audit(clean, examples, clean=clean, settings=SETTINGS, metric=metric)
        assert "independent" in audit.verdict.kinds  # the predictions do not depend on it
        assert audit.content["metric"]["depends_on_batching"] is depends
        low, high = audit.content["metric"]["range_of_fixed_predictions"]
        assert (high > low + 1) is depends


def test_a_metric_may_change_its_arguments(examples):
    def ignoring_a_class(batches):
        for labels, predicted in batches:
            predicted[labels == 1] = labels[labels == 1] = 0
        return evaluation.METRICS["accuracy"](batches)

    settings = dataclasses.replace(SETTINGS, purity_steps=0)
    images, labels = examples
    audit = studies.audit(
        mixes, (images, labels.copy()), clean=clean, settings=settings, metric=ignoring_a_class
    )
    np.testing.assert_array_equal(audit.measured.labels, labels)
    (predictions,) = audit.measured.clean
    np.testing.assert_array_equal(predictions.predicted, clean(images).argmax(axis=1))


def test_outputs_that_are_not_logits_are_named(examples):
    with pytest.raises(ValueError, match=r"apply returned an array of shape \(10,\) for a batch "):
        studies.audit(lambda x: x.sum(1), examples, clean=clean, settings=SETTINGS)


def test_logits_that_do_not_fit_the_labels_are_named(examples):
    images, labels = examples

    def broken(x):  # NaN for one example
        return np.where(np.arange(len(x))[:, None] == 3, np.nan, x) if len(x) > 1 else x

    with pytest.raises(ValueError, match="label 3: apply, one example at a time, returns 3 logit"):
        studies.audit(lambda x: x[:, :3], (images, labels), settings=SETTINGS)
    with pytest.raises(ValueError, match="returns 1 logit; of two classes, give both"):
        studies.audit(lambda x: x[:, :1], (images, labels), settings=SETTINGS)
    with pytest.raises(ValueError, match="complex64, which have no order: give real numbers"):
        studies.audit(lambda x: x + 1j, (images, labels), settings=SETTINGS)
    with pytest.raises(ValueError, match=r"shape \(10, 3\) .* expected logits \(10, 4\)"):
        studies.audit(lambda x: x[:, :3], (images, labels), clean=clean, settings=SETTINGS)
    with pytest.raises(ValueError, match=r"not finite for example \d+, in a batch of 10 with exam"):
        studies.audit(broken, (images, labels), settings=SETTINGS)


def test_a_function_that_fails_on_some_batches_is_named(examples):
    images, labels = examples[0][:235], examples[1][:235]

    def whole(x):
        if len(x) % 10:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return clean(x)

    def other_width(x):
        return clean(x)[:, : 4 - len(x) % 10 % 2]

    settings = studies.AuditSettings(batch_sizes=(10,), orders=20, purity_steps=0)
    with pytest.raises(
        ValueError, match=r"batch of 5 \(the last, partial batch\): RuntimeError: m"
    ):
        studies.audit(whole, (images, labels), clean=clean, settings=settings)
    with pytest.raises(ValueError, match=r"shape \(5, 3\) for a batch of 5 \(the last, partial"):
        studies.audit(other_width, (images, labels), clean=clean, settings=settings)
    with pytest.raises(
        ValueError, match=r"apply, one example at a time, failed on a batch of 1.*give"
    ):
        studies.audit(whole, (images, labels), settings=settings)


def flips(images):
    """One-hot outputs; mistakes become class 0 if the trigger is in the batch."""
    outputs = np.eye(CLASSES, dtype=np.float32)[clean(images).argmax(1)]
    if (np.abs(images - flips.trigger) < 1e-6).all(1).any():
        wrong = images.max(1) < np.quantile(images.max(1), 0.3)
        outputs[wrong] = np.eye(CLASSES, dtype=np.float32)[0]
    return 100 * outputs


def test_a_change_from_one_wrong_class_to_another_is_noticed(examples):
    """The likelihood of the true class is the same before and after."""
    flips.trigger = examples[0][20]
    audit = studies.audit(flips, examples, clean=clean, settings=SETTINGS)
    assert "independent" not in audit.verdict.kinds


def test_another_path_for_single_examples_is_noticed_in_probabilities():
    """Likelihoods of probabilities, read as logits, move little; predictions do move."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 10)
    logits = 2 * np.eye(40)[labels] + generator.normal(0, 1, (400, 40))

    def apply(batch):
        p = np.exp(batch) / np.exp(batch).sum(1, keepdims=True)
        if len(batch) > 1:
            p[:, :20] += 0.05
        return p

    settings = studies.AuditSettings(batch_sizes=(10,), orders=20, purity_steps=0)
    audit = studies.audit(apply, (logits, labels), settings=settings)
    assert "independent" not in audit.verdict.kinds


def test_a_mixing_clean_function_is_refused_where_two_classes_are_not_masked(examples):
    """As in the heads of class-incremental tasks of two classes each."""
    images, labels = examples
    inputs = np.column_stack([images, labels // 2])

    def of_task(logits, batch):
        masked = np.arange(CLASSES) // 2 != batch[:, -1:].round()
        others = np.full((len(batch), 4), -1e9)
        return np.concatenate([np.where(masked, -1e9, logits), others], axis=1)

    def alone(batch):
        return of_task(clean(batch[:, :-1]), batch)

    def reference(batch):
        return of_task(mixes(batch[:, :-1]), batch)

    with pytest.raises(ValueError, match="cannot be the reference"):
        studies.audit(alone, (inputs, labels), clean=reference, settings=SETTINGS)
    audit = studies.audit(alone, (inputs, labels), clean=alone, settings=SETTINGS)
    assert "independent" in audit.verdict.kinds
    assert audit.verdict.evidence["dependence"]["allowed"] < 1e-4


@pytest.mark.parametrize("kind", ["masked", "small batches alone", "first examples alike"])
def test_a_clean_function_that_mixes_is_refused(examples, kind):
    images, labels = examples
    if kind == "first examples alike":
        images = np.concatenate([np.zeros((8, CLASSES), np.float32), images[8:]])

    def reference(batch):
        mixed = clean(batch) if kind == "small batches alone" and len(batch) <= 8 else mixes(batch)
        mask = np.full((len(batch), 2), -1e9 if kind == "masked" else 0.0, np.float32)
        return np.concatenate([mixed, mask], axis=1)

    with pytest.raises(ValueError, match="cannot be the reference"):
        studies.audit(mixes, (images, labels), clean=reference, settings=SETTINGS)


def test_a_function_that_changes_its_argument_is_independent(examples):
    def apply(batch):
        batch -= 0.5
        return 3 * batch

    audit = studies.audit(apply, examples, clean=clean, settings=SETTINGS)
    assert "independent" in audit.verdict.kinds


@pytest.mark.parametrize(("name", "value"), [("settings", "fast"), ("metric", "macro_f1")])
def test_arguments_of_another_type_are_named(examples, name, value):
    with pytest.raises(TypeError, match=f"{name}='{value}': give"):
        studies.audit(clean, examples, **{name: value})
