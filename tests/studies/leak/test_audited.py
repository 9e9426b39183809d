"""Audited models and functions: what is measured is what the model itself computes."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from pnoise_jax import data, evaluation, models, noise, parallel
from pnoise_jax.studies.leak.audited.audited_function import AuditedFunction
from pnoise_jax.studies.leak.audited.audited_model import AuditedModel
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.measure import measure
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.verdict.summary import Summary
from tests.models.drawing import draw_variables

INJECTION = noise.Injection(noise.LinearTransform(noise.Optimal()), inference=True)


class Dense(models.Classifier, kw_only=True):
    """Two dense layers; their taps are called correctly only if `tap` is "inside"."""

    tap: str = "inside"

    @property
    def num_layers(self) -> int:
        return 2

    def run_embed(self, images, *, train):
        return images.reshape(images.shape[0], -1)

    def run_block(self, x, taps, *, layer, train):
        if self.tap == "elsewhere":
            x = taps(x, layer=layer, point="attention_input")
        if self.tap == "dropped":
            taps(x, layer=layer, point="block_input")
        if self.tap == "inside":
            x = taps(x, layer=layer, point="block_input")
        x = nn.relu(nn.Dense(16, name=self.layer_name(layer))(x))
        if self.tap == "before":
            x = taps(x, layer=layer + 1, point="block_input")
        return x

    def run_head(self, x, *, train):
        return nn.Dense(self.num_classes, name="head")(x)


class Scaled(Dense, kw_only=True):
    """Its call does more than its parts."""

    def __call__(self, images, **call):
        return 2 * super().__call__(images, **call)


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 4, 4, 1), np.uint8)
    labels = np.repeat(np.arange(4), 10).astype(np.int32)
    return data.Dataset("random", "all", 4, (4, 4, 1), labels, images)


def subject_of(model, dataset, injection=INJECTION):
    audited = AuditedNoise.of(injection, model.num_layers)
    variables = draw_variables(model, np.zeros((1, *dataset.image_shape), np.float32))
    options = {"mesh": parallel.data_mesh(), "mean": (0.5,), "std": (0.5,)}
    return AuditedModel(model, variables, dataset, noises=(audited,), seed=0, **options), audited


def test_a_tap_before_its_block_fails_by_name(dataset):
    model = Dense(num_classes=4, tap="before", injection=INJECTION)
    subject, audited = subject_of(model, dataset)
    subject.clean()
    with pytest.raises(ValueError, match=r"layer 2 of Dense has not called taps\(x, point='block_"):
        subject.require_resumable(audited, 10)


@pytest.mark.parametrize("tap", ["nowhere", "elsewhere", "before"])
def test_a_block_without_its_tap_is_not_audited_as_if_it_had_noise(tap, dataset):
    model = Dense(num_classes=4, tap=tap, injection=INJECTION)
    subject, audited = subject_of(model, dataset)
    subject.clean()
    with pytest.raises(ValueError, match=r"layer 2 of Dense has not called taps\(x, point='block_"):
        subject.predict(audited, np.arange(40), 10, seed=0)


@pytest.mark.parametrize("dropped", [INJECTION.noise, noise.SaltAndPepper(0.5, extremes="batch")])
def test_noise_that_a_block_drops_is_not_audited(dropped, dataset):
    injection = dataclasses.replace(INJECTION, noise=dropped)
    model = Dense(num_classes=4, tap="dropped", injection=injection)
    subject, audited = subject_of(model, dataset, injection)
    subject.clean()
    with pytest.raises(ValueError, match=r"changes no logit of 10 images, .* Dense does not use"):
        subject.require_resumable(audited, 10)


def test_a_call_that_is_more_than_its_parts_fails_by_name(dataset):
    subject, audited = subject_of(Scaled(num_classes=4, injection=INJECTION), dataset)
    with pytest.raises(ValueError, match=r"Scaled cannot be resumed at layer 2, .*: without noise"):
        subject.require_resumable(audited, 10)


SMALL = {"image_size": 4, "patch_size": 2, "dim": 16, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(
    "model",
    [
        Dense(num_classes=4, injection=INJECTION),
        models.create_model("vit_ti_16", num_classes=4, injection=INJECTION, **SMALL),
    ],
    ids=["dense", "vit"],
)
def test_chosen_batches_equal_what_the_model_computes(model, dataset):
    subject, audited = subject_of(model, dataset)
    subject.clean()
    subject.require_resumable(audited, 10)
    batches = np.random.default_rng(1).permutation(40).reshape(4, 10)
    together = subject.logits_of_batches(audited, batches, seed=0)
    one_by_one = [subject.batch_function(audited, 0)(subject.inputs(rows)) for rows in batches]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-4)
    predicted = subject.predict(audited, batches.ravel(), 10, seed=0).predicted
    np.testing.assert_array_equal(together.argmax(-1), predicted[batches])
    batches[1:, 3] = subject.blank
    together = subject.logits_of_batches(audited, batches, seed=0)
    one_by_one = [subject.batch_function(audited, 0)(subject.inputs(rows)) for rows in batches]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-4)


def test_noise_in_a_layer_drawn_for_each_batch_is_not_independent(dataset):
    """It mixes no examples, but which layer an example's noise enters depends on its batch."""
    settings = AuditSettings(batch_sizes=(8,), orders=20, purity_steps=0)
    injection = noise.Injection(noise.Gaussian(strength=3.0), layer="random", inference=True)
    subject, audited = subject_of(Dense(num_classes=4), dataset, injection)
    measured = measure([subject], dataset.labels, (audited,), settings, report=lambda line: None)
    (cell,) = measured.cells
    assert cell.dependence.largest_change == 0
    assert np.ptp(cell.orders["shuffled"].by_order) > 0
    verdict = Summary(measured, settings).verdict
    assert verdict.kind == "undecided"
    assert "every order" not in verdict.text
    assert "drawn for each batch" in verdict.text


def test_the_blank_example_is_black(dataset):
    subject, _ = subject_of(Dense(num_classes=4, injection=INJECTION), dataset)
    batch = subject.inputs(np.array([3, subject.blank]))
    np.testing.assert_array_equal(batch[0], dataset.images[3])
    assert not batch[1].any()


def test_logits_of_a_batch_equal_those_of_the_plain_model(dataset):
    model = Dense(num_classes=4, injection=INJECTION)
    variables = draw_variables(model, np.zeros((1, 4, 4, 1), np.float32))
    options = {"mean": (0.5,), "std": (0.5,)}
    logits = evaluation.batch_logits(model, variables, dataset.images, noise=False, **options)
    images = evaluation.normalise(dataset.images, (0.5,), (0.5,))
    expected = jax.jit(model.clone(injection=None).apply)(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_functions_blank_is_the_mean_example():
    inputs = np.arange(12.0).reshape(4, 3)
    subject = AuditedFunction(
        lambda b: b, None, inputs, np.array([0, 1, 2, 0]), seed=0, batch_size=2
    )
    batch = subject.inputs(np.array([4, 1]))
    np.testing.assert_array_equal(batch, [inputs.mean(0), inputs[1]])
