import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from pnoise_jax import noise
from pnoise_jax.models.parts import layers
from pnoise_jax.models.parts.attention import Attention

X = jax.random.normal(jax.random.key(0), (200, 3, 2))


def drop(rate: float, *, train: bool, seed: int = 0) -> jax.Array:
    rngs = {"dropout": jax.random.key(seed)}
    return layers.DropPath(rate, train).apply({}, X, rngs=rngs)


@pytest.mark.parametrize(("dtype", "precision"), [("bfloat16", 2**-8), ("float32", 1e-6)])
def test_a_gelu_is_as_exact_as_its_dtype(dtype, precision):
    x = jnp.linspace(-6, 6, 4001, dtype=dtype)
    exactly = np.asarray(x, np.float64)
    below = scipy.stats.norm.cdf(exactly)
    slope = below + exactly * scipy.stats.norm.pdf(exactly)
    for value, expected in (
        (layers.exact_gelu(x), exactly * below),
        (jax.vmap(jax.grad(layers.exact_gelu))(x), slope),
    ):
        assert value.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(value, np.float64), expected, rtol=precision, atol=1e-6
        )


def test_a_gelu_can_be_differentiated_twice():
    x = jnp.linspace(-3, 3, 50)
    curvature = jax.vmap(jax.grad(jax.grad(layers.exact_gelu)))(x)
    exactly = np.asarray(x, np.float64)
    expected = (2 - exactly**2) * scipy.stats.norm.pdf(exactly)
    np.testing.assert_allclose(curvature, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_gelu_has_a_tangent_too(dtype):
    x = jnp.linspace(-3, 3, 50, dtype=dtype)
    _, tangent = jax.jvp(layers.exact_gelu, (x,), (jnp.ones_like(x),))
    slope = jax.vmap(jax.grad(layers.exact_gelu))(x)
    np.testing.assert_allclose(
        np.asarray(tangent, np.float64), np.asarray(slope, np.float64), rtol=1e-6, atol=1e-6
    )


def test_a_gelu_in_bfloat16_stores_only_its_argument():
    _, pullback = jax.vjp(layers.exact_gelu, jnp.ones((4, 5), jnp.bfloat16))
    kept = [x for x in jax.tree.leaves(pullback) if jnp.size(x) > 1]
    assert [(x.shape, x.dtype) for x in kept] == [((4, 5), jnp.bfloat16)]


def test_a_compiled_gelu_stores_only_its_argument():
    x = jax.ShapeDtypeStruct((100, 1000), jnp.float32)
    kernel = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)

    def loss(x, kernel):
        return jnp.sum((layers.exact_gelu(x @ kernel) @ kernel) ** 2)

    compiled = jax.jit(jax.grad(loss)).lower(x, kernel).compile()
    # The inputs and outputs of both products, one at a time.
    assert compiled.memory_analysis().temp_size_in_bytes < 2.5 * 4 * 100 * 1000


def test_drop_path_zeroes_whole_examples_and_scales_the_others():
    y = drop(0.4, train=True)
    kept = y.any(axis=(1, 2))
    assert 0.45 < kept.mean() < 0.75  # 4 standard deviations
    np.testing.assert_allclose(y[kept], X[kept] / 0.6, rtol=1e-6)
    assert not y[~kept].any()
    assert (drop(0.4, train=True, seed=1) != y).any()


@pytest.mark.parametrize(("rate", "train"), [(0.0, True), (0.4, False)])
def test_drop_path_that_is_off_needs_no_key_and_changes_nothing(rate, train):
    assert layers.DropPath(rate, train).apply({}, X) is X


def test_a_block_leaves_out_its_attention_and_its_mlp_independently():
    rate, rng = 0.4, np.random.default_rng(0)
    attention = functools.partial(Attention, num_heads=2)
    block = layers.Block(layer=1, attention=attention, mlp_dim=8, drop_path=rate, train=True)
    taps = noise.Taps((), num_layers=1, prefix_tokens=0)
    x = jnp.tile(X[:1].repeat(2, -1) + 1, (400, 1, 1))  # the same example again and again
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    shapes = jax.eval_shape(block.init, rngs, x, taps)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    params = variables["params"]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def branch(module, norm, x):
        x = layers.layer_norm().apply({"params": params[norm]}, x)
        return module.apply({"params": params[module.name]}, x) / (1 - rate)

    after_attention = [x[:1], x[:1] + branch(attention(name="attn"), "norm1", x[:1])]
    mlp = functools.partial(branch, layers.Mlp(hidden_dim=8, name="mlp"), "norm2")
    outcomes = [y for h in after_attention for y in (h, h + mlp(h))]
    actual = jax.jit(functools.partial(block.apply, taps=taps))(variables, x, rngs=rngs)
    counts = [np.isclose(actual, y, atol=1e-4).all((1, 2)).sum() for y in outcomes]
    assert sum(counts) == 400
    left_out, kept = rate, 1 - rate
    expected = np.outer([left_out, kept], [left_out, kept]).ravel() * 400
    np.testing.assert_allclose(counts, expected, atol=40)  # 4 standard deviations


def test_drop_path_rates_grow_evenly():
    assert layers.drop_path_rates(0.3, 4) == pytest.approx((0.0, 0.1, 0.2, 0.3))
    assert layers.drop_path_rates(0.3, 1) == (0.0,)
    assert layers.drop_path_rates(0.0, 3) == (0.0, 0.0, 0.0)


def test_relative_positions_of_a_grid():
    index = layers.relative_position_index(2, 3)
    places = [(row, column) for row in range(2) for column in range(3)]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            down, right = row - other_row, column - other_column
            assert index[i, j] == (down + 1) * 5 + (right + 2)
    assert sorted(set(index.flat)) == list(range(3 * 5))
