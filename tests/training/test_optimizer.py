"""Optimisers and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnoise_jax import training
from pnoise_jax.training import optimizer


def section(**changes):
    config = training.default_config().optimizer
    config.learning_rate = 0.1
    config.update(changes)
    return config


def schedule(total=100, warmup=10, **changes):
    return optimizer.learning_rate_schedule(
        section(**changes), warmup_steps=warmup, total_steps=total
    )


def test_warmup_then_cosine_to_zero():
    rate = schedule()
    np.testing.assert_allclose([rate(0), rate(5), rate(10)], [0.0, 0.05, 0.1], atol=1e-7)
    assert float(rate(55)) == pytest.approx(0.05, abs=1e-6)  # half of the cosine
    assert float(rate(100)) == pytest.approx(0.0, abs=1e-7)
    assert float(schedule(warmup=0)(0)) == pytest.approx(0.1)
    assert float(schedule(warmup=0, schedule="constant")(7)) == pytest.approx(0.1)
    constant = schedule(schedule="constant")
    np.testing.assert_allclose([constant(5), constant(99)], [0.05, 0.1], rtol=1e-6)


def test_a_warmup_longer_than_the_run_is_an_error():
    with pytest.raises(ValueError, match=r"optimizer.warmup='9 epochs' is 200 steps, longer"):
        optimizer.learning_rate_schedule(
            section(warmup="9 epochs"), warmup_steps=200, total_steps=100
        )


PARAMS = {
    "cls_token": jnp.ones((1, 1, 4)),
    "pos_embed": jnp.ones((1, 3, 4)),
    "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    "norm": {"scale": jnp.ones(4)},
    "conv": {"kernel": jnp.ones((2, 2, 1, 4))},
}


def test_only_kernels_decay():
    decayed = optimizer.decayed(PARAMS)
    assert decayed == {
        "cls_token": False,
        "pos_embed": False,
        "head": {"kernel": True, "bias": False},
        "norm": {"scale": False},
        "conv": {"kernel": True},
    }


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_shrinks_kernels_and_nothing_else(name):
    config = section(name=name, weight_decay=0.5)
    transform = optimizer.create_optimizer(config, optax.constant_schedule(0.1))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = transform.update(zeros, transform.init(PARAMS), PARAMS)
    for path, update in jax.tree.leaves_with_path(updates):
        is_kernel = path[-1].key == "kernel"
        momentum = 1.9 if name == "sgd" else 1.0  # Nesterov's first step
        np.testing.assert_allclose(update, -0.05 * momentum * is_kernel, rtol=1e-5)


def test_clipping_is_by_the_norm_over_all_parameters():
    config = section(name="sgd", weight_decay=0.0, momentum=0.0, clip_norm=1.0)
    transform = optimizer.create_optimizer(config, optax.constant_schedule(1.0))
    gradients = jax.tree.map(lambda x: 100.0 * x, PARAMS)
    updates, _ = transform.update(gradients, transform.init(PARAMS), PARAMS)
    assert float(optax.tree.norm(updates)) == pytest.approx(1.0, rel=1e-5)
