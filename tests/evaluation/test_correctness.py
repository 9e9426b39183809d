"""What is correct where images have several labels, and where only some classes count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from pnoise_jax import data, evaluation, noise, parallel
from pnoise_jax.evaluation import Predictions, correctness
from tests.evaluation.test_evaluate import Linear

CLASSES = 12
PIXELS = {"mean": (0.5,), "std": (0.5,)}


def draw(seed, n=400):
    """Logits with many ties, labels, and sets of one to four labels in any order, padded."""
    generator = np.random.default_rng(seed)
    logits = generator.integers(0, 6, (n, CLASSES)).astype(np.float32)
    sets = np.full((n, 4), -1, np.int32)
    for row in sets:
        members = generator.permutation(CLASSES)[: generator.integers(1, 5)]
        row[: len(members)] = members
    return logits, generator.integers(0, CLASSES, n).astype(np.int32), sets


def test_a_prediction_is_correct_if_it_is_any_label_of_the_set():
    """As in the published evaluation of ReaL: top-k is correct if one of the k is in the set."""
    logits, labels, sets = draw(0)
    actual = Predictions.of(logits, labels, sets)
    order = np.argsort(-logits, axis=1, kind="stable")  # of equal logits the smaller class first
    for k in (1, 2, 5):
        top = order[:, :k]
        expected = [
            bool({*row} & {*members[members >= 0]}) for row, members in zip(top, sets, strict=True)
        ]
        np.testing.assert_array_equal(actual.rank < k, expected)
    np.testing.assert_array_equal(
        evaluation.is_correct(actual.predicted, labels, sets), actual.rank < 1
    )
    softmax = special.softmax(logits.astype(np.float64), axis=1)
    likelihood = [
        row[members[members >= 0]].sum() for row, members in zip(softmax, sets, strict=True)
    ]
    np.testing.assert_allclose(actual.nll, -np.log(likelihood), rtol=1e-5)


def test_scores_are_the_same_in_jax():
    logits, labels, sets = draw(1)
    expected = Predictions.of(logits, labels, sets)
    batch = {"label": jnp.array(labels), "label_set": jnp.array(sets)}
    actual = jax.jit(evaluation.score_logits)(jnp.array(logits), batch)
    np.testing.assert_array_equal(actual["rank"], expected.rank)
    np.testing.assert_array_equal(actual["predicted"], expected.predicted)
    np.testing.assert_allclose(actual["nll"], expected.nll, rtol=1e-5)


def test_sets_of_one_label_are_labels():
    logits, labels, _ = draw(2)
    sets = np.full((len(labels), 3), -1, np.int32)
    sets[:, 1] = labels
    from_sets, from_labels = Predictions.of(logits, labels, sets), Predictions.of(logits, labels)
    np.testing.assert_array_equal(from_sets.rank, from_labels.rank)
    np.testing.assert_allclose(from_sets.nll, from_labels.nll, rtol=1e-6)


def test_logits_that_are_not_numbers_are_not_correct():
    logits, labels, sets = draw(3)
    logits[5] = np.nan
    actual = Predictions.of(logits, labels, sets)
    assert np.isnan(actual.nll[5])
    assert not np.isnan(np.delete(actual.nll, 5)).any()


def test_metrics_see_a_label_that_the_prediction_equals_only_if_it_is_correct():
    logits, labels, sets = draw(4)
    predicted = logits.argmax(axis=1).astype(np.int32)
    single = correctness.as_single_labels(predicted, labels, sets)
    np.testing.assert_array_equal(
        single == predicted, Predictions.of(logits, labels, sets).rank < 1
    )
    assert all(label in members for label, members in zip(single, sets, strict=True))
    assert correctness.as_single_labels(predicted, labels, None) is labels
    # Several rows of predictions at once, as an audit has them by seed.
    both = np.stack([predicted, predicted[::-1]])
    np.testing.assert_array_equal(
        evaluation.is_correct(both, labels, sets)[1],
        evaluation.is_correct(predicted[::-1], labels, sets),
    )


@pytest.fixture(scope="module")
def several():
    """97 images of 12 classes, of which 5 occur, with sets of labels; the model; its logits."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (97, 4, 4, 1), np.uint8)
    occurring = np.array([1, 4, 5, 9, 11])
    labels = generator.choice(occurring, 97).astype(np.int32)
    second = generator.choice(np.append(occurring, [-1, -1]), 97).astype(np.int32)
    second[second == labels] = -1
    dataset = data.Dataset(
        "several",
        "test",
        CLASSES,
        (4, 4, 1),
        labels,
        images,
        label_sets=np.stack([second, labels], axis=1),  # padding may stand first
        occurring=occurring,
        class_names=tuple("abcdefghijkl"),
    )
    kernel = jax.random.normal(jax.random.key(0), (16, CLASSES))
    variables = {"params": {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(CLASSES)}}}
    pixels = (images.reshape(97, -1) / 255 - 0.5) / 0.5
    logits = np.tanh(pixels) @ np.asarray(kernel, np.float64)
    return dataset, variables, logits


@pytest.mark.parametrize("restricts", [False, True])
def test_evaluations_agree_on_what_is_correct(several, restricts):
    """Without noise, with noise of strength 0, in a clean pass, and by `batch_logits`."""
    dataset, variables, logits = several
    expected = Predictions.of(logits, dataset.labels, dataset.label_sets)
    if restricts:
        kept = dataset.occurring
        masked = np.full_like(logits, -np.inf)
        masked[:, kept] = logits[:, kept]
        expected = Predictions.of(masked, dataset.labels, dataset.label_sets)
        dataset = dataset.restricted()
        assert 100 * np.mean(expected.rank < 1) > 20  # chance among 12 would be half of it
    mesh = parallel.data_mesh()
    still = noise.Injection(
        noise.LinearTransform(noise.CyclicShift(0.0)), point="block_input", layer=2
    )
    model = Linear(num_classes=CLASSES, injection=still)
    actual = [
        evaluation.predict(
            model,
            variables,
            dataset,
            evaluation.Protocol(noise=noisy, order=order, batch_size=10),
            mesh=mesh,
            **PIXELS,
        )
        for noisy, order in ((False, "shuffled"), (True, "shuffled"), (True, "class_sorted"))
    ]
    clean = evaluation.clean_pass(model, variables, dataset, layers=(), mesh=mesh, **PIXELS)
    assert clean.logits.shape == (97, dataset.num_classes)
    for each in [*actual, clean.predictions]:
        np.testing.assert_array_equal(each.rank < 1, expected.rank < 1)
        np.testing.assert_array_equal(each.rank < 3, expected.rank < 3)
        np.testing.assert_allclose(each.nll, expected.nll, rtol=1e-4, atol=1e-5)
        names = np.array(dataset.class_names)
        np.testing.assert_array_equal(
            names[each.predicted], np.array(tuple("abcdefghijkl"))[expected.predicted]
        )
    by_hand = evaluation.batch_logits(
        model, variables, dataset.images, noise=False, classes=dataset.outputs, **PIXELS
    )
    np.testing.assert_allclose(by_hand, clean.logits, rtol=1e-5, atol=1e-5)


def test_several_draws_count_only_the_restricted_classes(several):
    dataset, variables, _ = several
    loud = noise.Injection(noise.Gaussian(strength=0.5), point="block_input", layer=2)
    model = Linear(num_classes=CLASSES, injection=loud)

    def nll(dataset, draws):
        protocol = evaluation.Protocol(noise=True, order="shuffled", batch_size=97, draws=draws)
        mesh = parallel.data_mesh()
        return evaluation.predict(model, variables, dataset, protocol, mesh=mesh, **PIXELS).nll

    restricted = nll(dataset.restricted(), draws=3)
    assert restricted.mean() != nll(dataset.restricted(), draws=1).mean()
    assert (np.exp(-restricted) <= 1 + 1e-5).all()
    # In each draw, the classes that do not count would take a share of the probability.
    assert (restricted < nll(dataset, draws=3)).all()


def test_targets_of_padding_have_label_0(several):
    dataset, *_ = several
    targets = dataset.targets(np.array([3, -1]))
    assert targets["label"].tolist() == [dataset.labels[3], 0]
    assert targets["label_set"].tolist() == [dataset.label_sets[3].tolist(), [0, -1]]


def test_a_relabelled_set_keeps_what_is_correct(several):
    dataset, *_ = several
    order = np.roll(np.arange(CLASSES), 5)
    relabelled = dataset.relabelled(order, [str(i) for i in range(CLASSES)])
    np.testing.assert_array_equal(relabelled.labels, order[dataset.labels])
    np.testing.assert_array_equal(relabelled.label_sets < 0, dataset.label_sets < 0)
    np.testing.assert_array_equal(relabelled.label_sets[:, 1], relabelled.labels)
    assert relabelled.occurring.tolist() == sorted(order[dataset.occurring].tolist())
    part = data.select(dataset, np.array([5, 2]))
    np.testing.assert_array_equal(part.label_sets, dataset.label_sets[[5, 2]])
    assert part.restricted().num_classes == 5
