"""FGSM and PGD: against formulas, within epsilon and the range of pixels, bad settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax.robustness import Attack

KEY = jax.random.key(0)
WEIGHTS = np.random.default_rng(1).normal(size=(4, 4, 1)).astype(np.float32)


def draw_pixels():
    drawn = np.random.default_rng(0).uniform(-0.3, 1.3, (6, 4, 4, 1))
    return np.clip(drawn, 0, 1).astype(np.float32)


def loss(pixels):
    """A cross-entropy of a linear model, whose gradient has a formula."""
    return jax.nn.softplus((pixels * WEIGHTS).sum((1, 2, 3))).mean()


def gradient(pixels):
    """Its gradient in NumPy."""
    score = (pixels * WEIGHTS).sum((1, 2, 3), keepdims=True)
    return WEIGHTS / (1 + np.exp(-score)) / len(pixels)


def test_fgsm_is_one_signed_step():
    pixels = draw_pixels()
    expected = np.clip(pixels + 0.1 * np.sign(gradient(pixels)), 0, 1)
    np.testing.assert_allclose(Attack(0.1)(None, loss, pixels), expected, atol=1e-6)


def test_pgd_is_projected_steps():
    pixels = draw_pixels()
    expected = pixels
    for _ in range(5):
        expected = expected + 0.04 * np.sign(gradient(expected))
        expected = np.clip(np.clip(expected, pixels - 0.1, pixels + 0.1), 0, 1)
    got = Attack(0.1, steps=5, step_size=0.04)(None, loss, pixels)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("epsilon", [1 / 255, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("random_start", [False, True])
def test_attacks_stay_within_epsilon_and_the_range_and_raise_the_loss(epsilon, steps, random_start):
    pixels = draw_pixels()
    attack = Attack(epsilon, steps, random_start=random_start)
    got = np.asarray(jax.jit(lambda key, x: attack(key, loss, x))(KEY, pixels))
    assert got.min() >= 0
    assert got.max() <= 1
    assert np.abs(got - pixels).max() <= epsilon + 1e-7
    assert loss(got) > loss(pixels)


def test_a_random_start_is_uniform_in_the_ball():
    pixels = np.full((200, 4, 4, 1), 0.5, np.float32)
    flat = Attack(0.2, random_start=True)(KEY, lambda x: 0 * x.sum(), pixels) - pixels
    assert float(np.abs(flat).max()) == pytest.approx(0.2, abs=1e-3)
    assert float(flat.std()) == pytest.approx(0.2 / np.sqrt(3), rel=0.03)
    assert float(flat.mean()) == pytest.approx(0, abs=0.01)
    with pytest.raises(ValueError, match="give it a key"):
        Attack(0.2, random_start=True)(None, loss, pixels)


def test_strength_scales_epsilon_and_steps():
    pixels = draw_pixels()
    half = Attack(0.2, steps=3)(None, loss, pixels, strength=jnp.float32(0.5))
    np.testing.assert_allclose(half, Attack(0.1, steps=3)(None, loss, pixels), atol=1e-6)
    np.testing.assert_array_equal(Attack(0.2)(None, loss, pixels, strength=0.0), pixels)


def test_no_gradient_passes_through_an_attack():
    def attacked(pixels):
        return Attack(0.1, steps=2)(None, loss, pixels).sum()

    np.testing.assert_array_equal(jax.grad(attacked)(draw_pixels()), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 8}, r"epsilon=8: pixels range from 0 to 1, so .* such as 8 / 255"),
        ({"epsilon": 1.01}, r"epsilon=1\.01"),
        ({"epsilon": 0}, "epsilon=0"),
        ({"epsilon": -0.1}, r"epsilon=-0\.1"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"epsilon": "much"}, "epsilon='much'"),
        ({"epsilon": 0.1, "steps": 0}, "steps=0: give a whole number of at least 1"),
        ({"epsilon": 0.1, "steps": 2.5}, r"steps=2\.5"),
        ({"epsilon": 0.1, "steps": True}, "steps=True"),
        ({"epsilon": 0.1, "step_size": 0.0}, r"step_size=0\.0"),
        ({"epsilon": 0.1, "step_size": 2}, "step_size=2"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Attack(**settings)
