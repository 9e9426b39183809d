"""Accuracy on perturbed images: against its parts, on any number of devices, bad input."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from pnoise_jax import evaluation, noise
from pnoise_jax.robustness import (
    KINDS,
    LOSSES,
    Attack,
    Perturbation,
    find_zero_gradients,
    perturbed,
    predict_perturbed,
)

PIXELS = {"mean": (0.5,), "std": (0.25,)}
KEY = jax.random.key(0)


class Small(nn.Module):
    """A batch norm whose statistics are not those of a batch, dropout, and noise on request."""

    injection: Any = None

    @nn.compact
    def __call__(self, x, train=False, **call):
        taps = noise.open_taps(self, self.injection, num_layers=1, train=train)
        x = taps(x, point="image").reshape(len(x), -1)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10)(x)


@pytest.fixture(scope="module")
def variables():
    generator = np.random.default_rng(0)
    initial = Small().init({"params": KEY}, jnp.zeros((1, 8, 8, 1)))
    return {
        "params": initial["params"],
        "batch_stats": {
            "BatchNorm_0": {
                "mean": generator.normal(size=64).astype(np.float32),
                "var": np.full(64, 3.0, np.float32),
            }
        },
    }


@pytest.fixture(scope="module")
def odd(digits):
    """37 examples: no number of devices divides them."""
    return dataclasses.replace(digits, labels=digits.labels[:37], images=digits.images[:37])


def mesh_of(devices):
    return jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])


def predict(variables, dataset, kind, strength, *, devices=8, model=None, **options):
    steps = {"steps": options.pop("steps")} if "steps" in options else {}
    return predict_perturbed(
        model or Small(),
        variables,
        dataset,
        Perturbation(kind, **steps),
        strength,
        mesh=mesh_of(devices),
        **(PIXELS | options),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_strength_0_is_the_clean_evaluation_and_injected_noise_is_off(variables, odd, kind):
    always = noise.Injection(noise.Gaussian(std=9.0), point="image", inference=True)
    got = predict(variables, odd, kind, 0.0, model=Small(injection=always))
    protocol = evaluation.Protocol(noise=False, order="shuffled", batch_size=10)
    clean = evaluation.predict(Small(), variables, odd, protocol, mesh=mesh_of(8), **PIXELS)
    np.testing.assert_allclose(got.nll, clean.nll, atol=2e-5)
    np.testing.assert_array_equal(got.predicted, clean.predicted)


def test_fgsm_is_one_signed_step_on_the_model_in_evaluation_mode(variables, odd):
    def logits(pixels):
        return Small().apply(variables, (pixels - 0.5) / 0.25)

    def loss(pixels):
        return optax.softmax_cross_entropy_with_integer_labels(logits(pixels), odd.labels).mean()

    pixels = np.asarray(odd.images, np.float32) / 255
    moved = np.clip(pixels + 0.05 * np.sign(jax.grad(loss)(pixels)), 0, 1)
    expected = evaluation.Predictions.of(np.asarray(logits(moved)), odd.labels)
    got = predict(variables, odd, "fgsm", 0.05, losses=("cross_entropy",))
    np.testing.assert_allclose(got.nll, expected.nll, rtol=1e-4, atol=1e-4)
    assert got.nll.mean() > predict(variables, odd, "fgsm", 0.0).nll.mean()


def test_pgd_of_a_linear_model_ends_where_no_attack_can_be_stronger(variables, odd):
    """The loss is convex, so highest at a corner; from another start it may be another corner."""
    pgd, fgsm = (predict(variables, odd, kind, 0.1) for kind in ("pgd", "fgsm"))
    assert (pgd.nll >= fgsm.nll - 0.02).mean() > 0.9
    assert (pgd.nll >= fgsm.nll - 0.1).all()
    assert (predict(variables, odd, "pgd", 1.0).rank > 0).all()  # any image is in reach


@pytest.mark.parametrize("kind", KINDS)
def test_perturbations_do_not_depend_on_devices(variables, odd, kind):
    results = [predict(variables, odd, kind, 0.2, devices=n, seed=5).nll for n in (1, 8)]
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-4)
    if kind != "fgsm":  # it draws nothing
        other = predict(variables, odd, kind, 0.2, seed=6).nll
        assert not np.allclose(results[1], other, atol=1e-3)


def test_gaussian_and_salt_and_pepper_have_their_strength():
    pixels = jnp.full((400, 8, 8, 1), 0.5).at[:, 0, 0].set(0.9).at[:, 0, 1].set(0.1)
    call = {"strength": 0.1, "index": jnp.arange(400)}
    gaussian = np.asarray(Perturbation("gaussian")(KEY, jnp.sum, pixels, **call))
    assert np.std(gaussian[:, 1:]) == pytest.approx(0.1, rel=0.02)
    assert gaussian.max() <= 1
    salted = np.asarray(Perturbation("salt_and_pepper")(KEY, jnp.sum, pixels, **call))
    assert np.isclose(salted[:, 1:], 0.9).mean() == pytest.approx(0.05, abs=0.005)
    assert np.isclose(salted[:, 1:], 0.1).mean() == pytest.approx(0.05, abs=0.005)


def test_all_strengths_share_a_program(variables, odd):
    predict(variables, odd, "pgd", 0.01)
    compiled = perturbed._score._cache_size()  # one for each loss
    predict(variables, odd, "pgd", 0.02)
    assert perturbed._score._cache_size() == compiled


class Rounded(Small):
    """Rounds pixels, which leaves no gradient."""

    @nn.compact
    def __call__(self, x, train=False, **call):
        return Small()(jnp.round(x), train=train)


def scaled(variables, factor):
    dense = jax.tree.map(lambda x: factor * x, variables["params"]["Dense_0"])
    return {**variables, "params": {**variables["params"], "Dense_0": dense}}


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
@pytest.mark.parametrize("factor", [30.0, 1e4])
def test_large_logits_are_no_protection(variables, odd, kind, factor):
    """Cross-entropy alone leaves some of them right, as its gradients vanish."""
    large = scaled(variables, factor)
    results = [predict(v, odd, kind, 0.02).rank for v in (variables, large)]
    np.testing.assert_array_equal(*(rank == 0 for rank in results))
    if factor == 1e4:
        (one_loss, clean) = (
            predict(large, odd, kind, e, losses=("cross_entropy",)).rank for e in (0.2, 0.0)
        )
        assert (one_loss[clean == 0] == 0).any()
    assert not find_zero_gradients(Small(), large, odd, mesh=mesh_of(8), **PIXELS).any()


def test_an_example_is_right_only_if_it_is_after_every_loss(variables, odd):
    worst = predict(variables, odd, "pgd", 0.05)
    each = [predict(variables, odd, "pgd", 0.05, losses=(loss,)).rank == 0 for loss in LOSSES]
    np.testing.assert_array_equal(worst.rank == 0, np.all(each, axis=0))
    for loss in ("much", "", "Margin"):
        with pytest.raises(ValueError, match=r"losses=.*give a tuple of some of cross_entropy"):
            predict(variables, odd, "pgd", 0.05, losses=(loss,))


def test_a_blind_attack_moves_each_pixel_by_epsilon_either_way(variables, odd):
    first = predict(variables, odd, "fgsm", 0.3, losses=("blind",))
    assert not np.allclose(first.nll, predict(variables, odd, "fgsm", 0.0).nll, atol=1e-3)
    assert (first.nll <= predict(variables, odd, "fgsm", 0.3).nll + 1e-4).all()
    other = predict(variables, odd, "fgsm", 0.3, losses=("blind",), seed=1)
    assert not np.allclose(first.nll, other.nll, atol=1e-3)


def test_images_without_a_gradient_are_found(variables, odd):
    options = {"mesh": mesh_of(8), **PIXELS}
    assert not find_zero_gradients(Small(), variables, odd, **options).any()
    nested = {name: {"Small_0": variables[name]} for name in variables}
    assert find_zero_gradients(Rounded(), nested, odd, **options).all()


def test_examples_without_labels_are_refused(variables, odd):
    unlabelled = dataclasses.replace(odd, labels=np.full(37, -1, np.int32))
    with pytest.raises(ValueError, match=r"example 0 of digits's split .* has no label \(-1\)"):
        predict(variables, unlabelled, "fgsm", 0.1)


@pytest.mark.parametrize(
    ("kind", "strengths", "message"),
    [
        ("pgd", (), r"s=\(\): give at least one strength"),
        ("pgd", (0.1, 0.1), r"s=\(0\.1, 0\.1\): 0\.1 appears twice"),
        ("fgsm", (0.2, 0.1), "give them in ascending order"),
        ("fgsm", (8,), r"s=\(8\): 8 is not a change of pixels, which range from 0 to 1"),
        ("pgd", (0.1, 1.5), r"1\.5 is not a change of pixels"),
        ("gaussian", (-0.1,), r"-0\.1 is not a standard deviation"),
        ("gaussian", (float("nan"),), "nan is not a standard deviation"),
        ("gaussian", (float("inf"),), "inf is not a standard deviation"),
        ("salt_and_pepper", (1.2,), r"1\.2 is not a probability"),
        ("gaussian", ("much",), "'much' is not"),
        ("gaussian", (True,), "True is not"),
        ("gaussian", "0.1", "s='0.1': give a tuple"),
        ("gaussian", 0.1, r"s=0\.1: give a tuple"),
    ],
)
def test_bad_strengths_are_named(kind, strengths, message):
    with pytest.raises(ValueError, match=message):
        Perturbation(kind).require_strengths(strengths, field="s")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cw"}, "kind='cw': choose one of gaussian"),
        ({"kind": "pgd", "steps": 0}, "steps=0: give a whole number of at least 1"),
        ({"kind": "pgd", "steps": 2.5}, r"steps=2\.5"),
        ({"kind": "fgsm", "steps": 3}, "steps=3: only pgd has steps"),
        ({"kind": "fgsm", "random_start": False}, "random_start=False: only pgd has one"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Perturbation(**settings)


def test_an_attack_draws_its_start_by_index():
    pixels = jnp.full((4, 2, 2, 1), 0.5)
    attack = Attack(0.1, 1, 1e-9, random_start=True)
    swapped = jnp.array([1, 0, 3, 2])
    got = attack(KEY, jnp.sum, pixels, index=swapped)
    np.testing.assert_allclose(got, attack(KEY, jnp.sum, pixels)[swapped], atol=1e-6)
