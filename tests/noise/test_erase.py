"""Erasing a site: it becomes zero, and examples do not mix."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pnoise_jax import models, noise

PLACE = {"preset": "optimal_published", "name": "erase"}


def sample(shape=(16, 5, 3)):
    return jax.random.normal(jax.random.key(1), shape)


def test_full_strength_gives_zeros_and_strength_zero_changes_nothing():
    x = sample()
    chex.assert_trees_all_equal(noise.Erase()(None, x), jnp.zeros_like(x))
    chex.assert_trees_all_equal(noise.Erase(0.0)(None, x), x)
    chex.assert_trees_all_close(noise.Erase()(None, x, strength=jnp.float32(0.25)), 0.75 * x)
    assert noise.Erase(0.5)(None, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_padding_is_unchanged():
    x, mask = sample(), jnp.arange(16) < 11
    y = noise.Erase()(None, x, mask=mask)
    chex.assert_trees_all_equal(y[11:], x[11:])
    assert not y[:11].any()


def test_it_works_on_an_explicit_mesh():
    x, mask = sample(), jnp.arange(16) < 11
    sharding = NamedSharding(jax.make_mesh((8,), ("data",), (AxisType.Explicit,)), P("data"))
    got = jax.jit(lambda x, mask: noise.Erase(0.5)(None, x, mask=mask))(
        jax.device_put(x, sharding), jax.device_put(mask, sharding)
    )
    chex.assert_trees_all_close(jax.device_get(got), noise.Erase(0.5)(None, x, mask=mask))


def test_a_config_puts_it_at_the_published_site():
    injection = noise.Injection.from_config(PLACE)
    assert injection == noise.Injection(
        noise.Erase(), point="attention_input", tokens="patch", train=False, inference=True
    )
    with pytest.raises(ValueError, match=r"noise.shift=1 is set, but erase does not use it"):
        noise.Injection.from_config(PLACE | {"shift": 1})
    with pytest.raises(ValueError, match="strength=nan"):
        noise.Injection.from_config(PLACE | {"strength": float("nan")})


@pytest.mark.parametrize("depth", [1, 2])
def test_a_class_token_sees_no_image_once_the_only_block_is_erased(depth):
    model = models.create_model(
        "vit_ti_16",
        num_classes=3,
        image_size=8,
        patch_size=4,
        dim=8,
        depth=depth,
        num_heads=2,
        injection=noise.Injection.from_config(PLACE),
    )
    images = jax.random.normal(jax.random.key(2), (6, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(3), images)
    generator = np.random.default_rng(0)  # as initialised, biases are 0, the class token nearly
    variables = jax.tree.map(
        lambda x: x + generator.normal(0, 0.5, x.shape).astype(np.float32), variables
    )
    logits = jax.jit(model.apply)(variables, images)
    spread = float(jnp.ptp(logits, axis=0).max())
    assert spread < 1e-5 if depth == 1 else spread > 0.1
    chex.assert_trees_all_close(jax.jit(model.apply)(variables, images[:1]), logits[:1], atol=1e-5)
