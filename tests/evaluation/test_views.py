"""Views of one image, and evaluations that average over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from pnoise_jax import data, evaluation, noise
from pnoise_jax.evaluation.views import MAX_VIEWS, shifted_views
from tests.evaluation.test_evaluate import Linear

PIXELS = {"mean": (0.5,), "std": (0.5,)}
IMAGES = jnp.arange(2 * 4 * 5 * 1, dtype=jnp.float32).reshape(2, 4, 5, 1)


def test_views_are_the_image_and_its_shifts():
    views = shifted_views(IMAGES, MAX_VIEWS).reshape(2, MAX_VIEWS, 4, 5, 1)
    np.testing.assert_array_equal(views[:, 0], IMAGES)
    np.testing.assert_array_equal(views[:, 1, :, 1:], IMAGES[:, :, :-1])  # to the right
    np.testing.assert_array_equal(views[:, 1, :, 0], IMAGES[:, :, 0])  # its edge repeats
    np.testing.assert_array_equal(views[:, 2, 1:], IMAGES[:, :-1])  # down
    np.testing.assert_array_equal(views[:, 8, :-1, :-1], IMAGES[:, 1:, 1:])  # up and left
    assert len({view.tobytes() for view in np.asarray(views[0])}) == MAX_VIEWS


def test_a_shift_is_a_32nd_of_the_shorter_side():
    images = jnp.arange(64 * 96, dtype=jnp.float32).reshape(1, 64, 96, 1)
    views = shifted_views(images, 3)
    np.testing.assert_array_equal(views[1, :, 2:], images[0, :, :-2])
    np.testing.assert_array_equal(views[1, :, 1], images[0, :, 0])
    np.testing.assert_array_equal(views[2, 2:], images[0, :-2])


@pytest.mark.parametrize("count", [0, MAX_VIEWS + 1])
def test_a_bad_count_is_named(count):
    with pytest.raises(ValueError, match=f"views={count}: give a whole number from 1 to 9"):
        shifted_views(IMAGES, count)


@pytest.mark.parametrize("devices", [1, 8])
def test_logits_are_the_mean_over_views_and_mixing_stays_within_an_image(digits, devices):
    dataset = data.Dataset("digits", "test", 10, (8, 8, 1), digits.labels[:60], digits.images[:60])
    kernel = jax.random.normal(jax.random.key(0), (64, 10)) / 8
    variables = {"params": {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(10)}}}
    mixing = noise.LinearTransform(noise.Optimal(), axis="views", group_size=4)
    model = Linear(injection=noise.Injection(mixing, point="image"))
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    by_protocol = {
        (noisy, order): evaluation.predict(
            model,
            variables,
            dataset,
            evaluation.Protocol(noise=noisy, order=order, batch_size=10),
            mesh=mesh,
            views=4,
            **PIXELS,
        )
        for noisy in (False, True)
        for order in evaluation.ORDERS
    }
    views = np.asarray(shifted_views(jnp.asarray(dataset.images), 4), np.float64)
    x = (views.reshape(60, 4, 64) / 255 - 0.5) / 0.5
    for noisy in (False, True):
        by_hand = (x + x.sum(1, keepdims=True)) / 5 if noisy else x
        logits = (np.tanh(by_hand) @ np.asarray(kernel, np.float64)).mean(axis=1)
        nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(60), dataset.labels]
        for order in evaluation.ORDERS:
            np.testing.assert_allclose(by_protocol[noisy, order].nll, nll, rtol=1e-3, atol=1e-4)
