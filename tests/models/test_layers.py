import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnoise_jax import noise
from pnoise_jax.models import convolutions, layers
from pnoise_jax.models.attention import Attention

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


def test_a_gelu_in_bfloat16_keeps_its_argument_alone():
    _, pullback = jax.vjp(layers.exact_gelu, jnp.ones((4, 5), jnp.bfloat16))
    kept = [x for x in jax.tree.leaves(pullback) if jnp.size(x) > 1]
    assert [(x.shape, x.dtype) for x in kept] == [((4, 5), jnp.bfloat16)]


def test_a_gelu_keeps_its_argument_alone_once_compiled():
    x = jax.ShapeDtypeStruct((100, 1000), jnp.float32)
    kernel = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)

    def loss(x, kernel):
        return jnp.sum((layers.exact_gelu(x @ kernel) @ kernel) ** 2)

    compiled = jax.jit(jax.grad(loss)).lower(x, kernel).compile()
    # What goes in and comes out of both products, one at a time.
    assert compiled.memory_analysis().temp_size_in_bytes < 2.5 * 4 * 100 * 1000


@pytest.mark.parametrize("sides", [(32, 48), (35, 50)])
def test_patches_are_convolved_as_by_a_larger_kernel(sides):
    x = jax.random.normal(jax.random.key(0), (2, *sides, 3))
    kernel = jax.random.normal(jax.random.key(1), (16, 12, 3, 5))

    def expected(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, kernel.shape[:2], "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    results = [
        jax.value_and_grad(lambda *a, f=f: jnp.square(f(*a)).mean(), argnums=(0, 1))(x, kernel)
        for f in (convolutions.convolve_patches, convolutions.multiply_patches, expected)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (2, 1), (3, 4), (7, 5)])
def test_convolutions_of_few_pixels_are_those_of_many(sides, strides):
    x = jax.random.normal(jax.random.key(0), (3, *sides, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))
    options = {"strides": strides, "padding": ((1, 1), (1, 1))}

    def expected(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, *options.values(), dimension_numbers=numbers)

    def ours(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return convolutions.of_images(x, kernel, *options.values(), dimension_numbers=numbers)

    gathered = functools.partial(convolutions.gather_and_multiply, **options)
    results = [
        jax.value_and_grad(lambda *a, f=f: jnp.square(f(*a)).mean(), argnums=(0, 1))(x, kernel)
        for f in (expected, ours, gathered)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)
    few = all((side - 1) // stride < 2 for side, stride in zip(sides, strides, strict=True))
    assert ("dot_general" in str(jax.make_jaxpr(ours)(x, kernel))) == few


@pytest.mark.parametrize(
    ("examples", "side", "stride"), [(3, 3, 1), (17, 3, 1), (40, 3, 2), (17, 7, 2)]
)
def test_a_convolution_for_cpus_is_any_other_forward_and_backward(examples, side, stride):
    keys = jax.random.split(jax.random.key(0), 4)
    primals = (jax.random.normal(keys[0], (examples, 9, 8, 4)),)
    primals += (jax.random.normal(keys[1], (side, side, 4, 5)),)
    tangents = tuple(jax.random.normal(k, x.shape) for k, x in zip(keys[2:], primals, strict=True))
    options = {"strides": (stride, stride), "padding": ((side // 2, side // 2),) * 2}

    def expected(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, *options.values(), dimension_numbers=numbers)

    def differentiate(f):
        gradient = jax.grad(lambda *a: jnp.square(f(*a)).mean(), argnums=(0, 1))
        several = jax.vmap(gradient, (None, 0))(primals[0], jnp.stack([primals[1], tangents[1]]))
        return jax.jvp(f, primals, tangents), several

    differentiate = jax.jit(differentiate, static_argnums=0)
    ours = functools.partial(convolutions.convolve_on_cpu, **options)
    one = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    with jax.set_mesh(one):  # only there are the examples taken in parts
        found = differentiate(ours)
    chex.assert_trees_all_close(found, differentiate(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 2)},
        {"feature_group_count": 2},
        {"dimension_numbers": ("HWNC", "HWIO", "NHWC")},
        {"dimension_numbers": None},
        {"batch_group_count": 2},
    ],
)
def test_convolutions_of_other_kinds_are_left_to_xla(options):
    x = jax.random.normal(jax.random.key(0), (6, 6, 6, 6))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 6, 6))
    if "feature_group_count" in options:
        kernel = kernel[:, :, :3]
    if options == {"dimension_numbers": None}:
        kernel = kernel.transpose(3, 2, 0, 1)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")} | options
    arguments = (x, kernel, (1, 1), ((1, 1), (1, 1)))
    expected = jax.lax.conv_general_dilated(*arguments, **options)
    chex.assert_trees_all_equal(convolutions.of_images(*arguments, **options), expected)


@pytest.mark.parametrize(
    ("convolve", "sides", "options"),
    [
        (convolutions.of_images, (3, 3), {"strides": (1, 1), "padding": ((1, 1), (1, 1))}),
        (convolutions.patchwise, (4, 4), {"strides": (4, 4), "padding": "VALID"}),
    ],
)
def test_xla_computes_the_gradients_of_micro_batches_by_its_own_kernels(convolve, sides, options):
    x, kernel = jnp.ones((3, 16, 8, 8, 4)), jnp.ones((*sides, 4, 5))

    def total(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jnp.square(convolve(x, kernel, *options.values(), dimension_numbers=numbers)).sum()

    def accumulate(x, kernel):
        def add(total_gradient, part):
            return total_gradient + jax.grad(total, argnums=1)(part, kernel), None

        return jax.lax.scan(add, jnp.zeros_like(kernel), x)[0]

    text = jax.jit(accumulate).lower(x, kernel).compile().as_text()
    assert "while(" in text
    # In other layouts its CPU backend computes convolutions in loops value by value.
    assert set(re.findall(r"dim_labels=(\S+?->\w+)", text)) <= {"b01f_01io->b01f"}


def test_patches_are_embedded_on_a_mesh_with_explicit_axes():
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Explicit,), devices=jax.devices()[:2])
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x, kernel = jnp.ones((4, 32, 32, 3)), jnp.ones((16, 16, 3, 5))

    def embed(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return convolutions.patchwise(x, kernel, (16, 16), "VALID", dimension_numbers=numbers)

    embedded = jax.jit(embed)(jax.device_put(x, split), jax.device_put(kernel, whole))
    np.testing.assert_array_equal(embedded, np.full((4, 2, 2, 5), 768.0))


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
