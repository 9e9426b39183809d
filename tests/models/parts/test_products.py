"""Products of tokens with a matrix: the same numbers, and no activations transposed on CPUs."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnoise_jax.models import compiling_for
from pnoise_jax.models.parts import products


def step(dense):
    """The gradients of a dense layer on x, and the gradient of x."""

    def gradients(variables, x):
        return jax.grad(lambda v, x: jnp.square(jnp.sin(dense.apply(v, x))).sum(), (0, 1))(
            variables, x
        )

    return gradients


@pytest.mark.parametrize("shape", [(6,), (5, 6), (4, 5, 6), (2, 3, 5, 6)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_dense_layer_is_flaxs(shape, dtype):
    x = jax.random.normal(jax.random.key(0), shape)
    ours, flaxs = (module(3, dtype=dtype) for module in (products.dense, nn.Dense))
    variables = ours.init(jax.random.key(1), x)
    chex.assert_trees_all_equal(variables, flaxs.init(jax.random.key(1), x))
    results = [(module.apply(variables, x), step(module)(variables, x)) for module in (ours, flaxs)]
    tolerance = 1e-5 if dtype == jnp.float32 else 0.02
    chex.assert_trees_all_close(*results, rtol=tolerance, atol=tolerance)
    chex.assert_trees_all_equal_shapes_and_dtypes(*results)


def test_nothing_large_is_transposed_for_the_gradients():
    """Flax's own layer does so here, until XLA avoids it as well."""
    x = jnp.ones((8, 33, 48))
    transposed = []
    for module in (products.dense(64), nn.Dense(64)):
        variables = module.init(jax.random.key(0), x)
        text = jax.jit(step(module)).lower(variables, x).compile().as_text()
        transposed.append(bool(re.search(r"f32\[(48|64),264\]\S* (copy|fusion)\(", text)))
    assert transposed == [False, True]


class _Absent:
    platform = "tpu"


def test_other_devices_keep_their_axes():
    """A TPU stores the last two axes in tiles, so merging one of 197 would copy."""
    dense, x = products.dense(3), jnp.ones((4, 5, 6))
    variables = dense.init(jax.random.key(0), x)
    assert "reshape" in str(jax.make_jaxpr(lambda x: dense.apply(variables, x))(x))
    with compiling_for(_Absent()):
        program = str(jax.make_jaxpr(lambda x: nn.Dense(3).apply(variables, x))(x))
        assert str(jax.make_jaxpr(lambda x: dense.apply(variables, x))(x)) == program


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_examples_stay_on_their_devices(kind):
    mesh = jax.make_mesh((8,), ("data",), (kind,))
    x = jax.random.normal(jax.random.key(0), (8, 5, 6))
    dense = products.dense(3)
    variables = dense.init(jax.random.key(1), x)
    with jax.sharding.set_mesh(mesh):
        place = NamedSharding(mesh, PartitionSpec("data"))
        program = jax.jit(dense.apply).lower(variables, jax.device_put(x, place)).compile()
        result = program(
            jax.device_put(variables, NamedSharding(mesh, PartitionSpec())),
            jax.device_put(x, place),
        )
    assert not re.search(r"all-(gather|reduce|to-all)", program.as_text())
    assert result.sharding.spec[0] == "data"
    np.testing.assert_allclose(result, dense.apply(variables, x), rtol=1e-5, atol=1e-6)
