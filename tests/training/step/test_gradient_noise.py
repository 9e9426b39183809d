"""Noise on gradients: its decay, its config, and the key that the train step provides."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnoise_jax import training
from pnoise_jax.training import optimizer
from pnoise_jax.training.step.gradient_noise import add_gradient_noise
from tests.training.step.test_step import create, setup

PARAMS = {"head": {"kernel": jnp.zeros((300, 100))}, "still": {"kernel": jnp.zeros((300, 100))}}


def test_gradient_noise_decays():
    transform = add_gradient_noise(0.5, 0.55)
    state = transform.init(PARAMS)
    for step in range(3):
        key = jax.random.key(step)
        updates, state = transform.update(PARAMS, state, noise_key=key)
        expected = np.sqrt(0.25 / (1 + step) ** 0.55)
        assert np.std(updates["head"]["kernel"]) == pytest.approx(expected, rel=0.02)
    assert not np.array_equal(updates["head"]["kernel"], updates["still"]["kernel"])


def test_gradient_noise_comes_after_clipping_and_spares_frozen_parameters():
    config = training.default_config().optimizer
    config.update({"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 1e-6})
    config.update({"gradient_noise_std": 0.5, "freeze": ("still/.*",)})
    transform = optimizer.create_optimizer(config, optax.constant_schedule(1.0))
    key = jax.random.key(0)
    updates, _ = transform.update(PARAMS, transform.init(PARAMS), PARAMS, noise_key=key)
    assert np.std(updates["head"]["kernel"]) == pytest.approx(0.5, rel=0.02)
    assert not np.any(updates["still"]["kernel"])
    other, _ = transform.update(PARAMS, transform.init(PARAMS), PARAMS, noise_key=jax.random.key(1))
    assert not np.array_equal(updates["head"]["kernel"], other["head"]["kernel"])


def test_the_step_provides_a_key_that_depends_on_the_seed(digits):
    batch = {"image": jnp.asarray(digits.images[:16]), "label": jnp.asarray(digits.labels[:16])}
    noisy = optax.chain(add_gradient_noise(1.0, 0.0), optax.sgd(0.1))
    state, step = setup(create(), noisy)
    trained = [step(state, batch, jax.random.key(seed))[0].params for seed in (0, 0, 1)]
    kernels = [np.asarray(params["head"]["kernel"]) for params in trained]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.std(kernels[0] - kernels[2]) == pytest.approx(0.1 * np.sqrt(2), rel=0.25)
