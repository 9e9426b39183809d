"""Each term of the losses against NumPy, the reversal against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from pnoise_jax.adaptation import discriminators, losses

GENERATOR = np.random.default_rng(0)


def test_cross_entropy_with_smoothed_labels():
    logits = GENERATOR.normal(size=(6, 4))
    labels = GENERATOR.integers(0, 4, 6)
    targets = np.full((6, 4), 0.1 / 4)
    targets[np.arange(6), labels] += 0.9
    expected = -(targets * special.log_softmax(logits, axis=1)).sum(1).mean()
    got = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), 0.1)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_discriminator_and_its_accuracy():
    source, target = (np.float32(GENERATOR.normal(size=n)) for n in ((5, 3), (8, 2)))
    expected = (np.log1p(np.exp(-source)).mean() + np.log1p(np.exp(target)).mean()) / 2
    assert float(losses.domain_loss(source, target)) == pytest.approx(expected, rel=1e-5)
    right = ((source > 0).mean() + (target <= 0).mean()) / 2
    assert float(losses.domain_accuracy(source, target)) == pytest.approx(100 * right)


def test_information_maximisation_is_in_bits_and_prefers_confident_diverse_predictions():
    logits = 3 * GENERATOR.normal(size=(7, 5))
    p = special.softmax(logits, axis=1)
    mean = p.mean(0)
    expected = -(p * np.log2(p)).sum(1).mean() + (mean * np.log2(mean)).sum()
    got = float(losses.information_maximisation(jnp.asarray(logits)))
    assert got == pytest.approx(expected, rel=1e-4)
    confident = 50 * jnp.eye(4)
    assert float(losses.information_maximisation(confident)) == pytest.approx(-2.0)  # 4 classes
    assert float(losses.information_maximisation(jnp.zeros((4, 4)))) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_entropy_of_a_decision(scale):
    logits = scale * GENERATOR.normal(size=9)
    p = special.expit(logits)
    expected = (special.entr(p) + special.entr(special.expit(-logits))) / np.log(2)
    np.testing.assert_allclose(losses.binary_entropy(jnp.asarray(logits)), expected, atol=1e-6)
    assert np.isfinite(
        jax.grad(lambda x: losses.binary_entropy(x).sum())(jnp.asarray(logits))
    ).all()


@pytest.mark.parametrize("coefficient", [0.0, 0.3, 1.0])
def test_the_gradient_is_reversed_and_the_value_is_not(coefficient):
    """Against a central difference of the function after the reversal."""
    x, weights = GENERATOR.normal(size=(3, 2)), GENERATOR.normal(size=(3, 2))

    def after_reversal(x):
        return np.sin(x) @ weights.T

    def loss(x):
        reversed_x = discriminators.reverse_gradient(x, jnp.float32(coefficient))
        return (jnp.sin(reversed_x) @ weights.T).sum()

    assert float(loss(jnp.asarray(x))) == pytest.approx(after_reversal(x).sum(), rel=1e-5)
    gradient = jax.grad(loss)(jnp.asarray(x))
    step = 1e-5
    for place in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        slope = (after_reversal(moved[0]).sum() - after_reversal(moved[1]).sum()) / (2 * step)
        assert float(gradient[place]) == pytest.approx(-coefficient * slope, abs=1e-4)


def test_the_schedule_of_the_reversal():
    assert float(discriminators.reversal_coefficient(jnp.float32(0))) == 0
    for step, published in ((500, 0.245), (2500, 0.848), (5000, 0.987)):
        got = discriminators.reversal_coefficient(jnp.float32(step / 10_000))
        assert float(got) == pytest.approx(published, abs=1e-3)
