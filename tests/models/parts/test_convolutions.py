import contextlib
import functools
import re
import types

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnoise_jax import models
from pnoise_jax.models.parts import convolutions, winograd

NUMBERS = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("sides", [(32, 48), (35, 50)])
def test_convolving_patches_equals_a_strided_convolution(sides):
    x = jax.random.normal(jax.random.key(0), (2, *sides, 3))
    kernel = jax.random.normal(jax.random.key(1), (16, 12, 3, 5))

    def expected(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, kernel.shape[:2], "VALID", dimension_numbers=NUMBERS
        )

    results = [
        jax.value_and_grad(lambda *a, f=f: jnp.square(f(*a)).mean(), argnums=(0, 1))(x, kernel)
        for f in (convolutions.convolve_patches, convolutions.multiply_patches, expected)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (2, 1), (3, 4), (7, 5)])
def test_convolutions_of_few_pixels_equal_xlas(sides, strides):
    x = jax.random.normal(jax.random.key(0), (3, *sides, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))
    options = {"strides": strides, "padding": ((1, 1), (1, 1))}

    def expected(x, kernel):
        return lax.conv_general_dilated(x, kernel, *options.values(), dimension_numbers=NUMBERS)

    def ours(x, kernel):
        return convolutions.of_images(x, kernel, *options.values(), dimension_numbers=NUMBERS)

    gathered = functools.partial(convolutions.gather_and_multiply, **options)
    results = [
        jax.value_and_grad(lambda *a, f=f: jnp.square(f(*a)).mean(), argnums=(0, 1))(x, kernel)
        for f in (expected, ours, gathered)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)
    few = all((side - 1) // stride < 2 for side, stride in zip(sides, strides, strict=True))
    assert ("dot_general" in str(jax.make_jaxpr(ours)(x, kernel))) == few


@pytest.fixture
def one_device():
    """Sets a mesh of one device, as programs do."""
    with jax.set_mesh(jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])):
        yield


def differentiate(convolve):
    """A convolution's result, its tangent, and its gradients for two kernels by `vmap`."""

    def differentiated(primals, tangents):
        gradient = jax.grad(lambda *a: jnp.square(convolve(*a)).mean(), argnums=(0, 1))
        several = jax.vmap(gradient, (None, 0))(primals[0], jnp.stack([primals[1], tangents[1]]))
        return jax.jvp(convolve, primals, tangents), several

    return jax.jit(differentiated)


def draw_twice(*shapes):
    """Two draws of arrays of these shapes."""
    keys = iter(jax.random.split(jax.random.key(0), 2 * len(shapes)))
    return [tuple(jax.random.normal(next(keys), shape) for shape in shapes) for _ in range(2)]


@pytest.mark.parametrize(
    ("examples", "side", "stride"), [(3, 3, 1), (17, 3, 1), (40, 3, 2), (17, 7, 2)]
)
@pytest.mark.usefixtures("one_device")  # only there are the examples split
def test_a_convolution_for_cpus_equals_xlas_forward_and_backward(examples, side, stride):
    arguments = draw_twice((examples, 9, 8, 4), (side, side, 4, 5))
    options = {"strides": (stride, stride), "padding": ((side // 2, side // 2),) * 2}

    def usual(x, kernel):
        return lax.conv_general_dilated(x, kernel, *options.values(), dimension_numbers=NUMBERS)

    ours = functools.partial(convolutions.convolve_on_cpu, **options)
    actual = differentiate(ours)(*arguments)
    chex.assert_trees_all_close(actual, differentiate(usual)(*arguments), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sides", "padding"),
    [
        ((6, 8), ((1, 1), (1, 1))),
        ((7, 5), ((1, 1), (1, 1))),
        ((7, 6), ((0, 0), (0, 0))),
        ((3, 6), ((0, 2), (3, 0))),
        ((1, 1), ((1, 1), (1, 1))),
    ],
)
def test_a_convolution_of_fewer_multiplications_equals_xlas(sides, padding):
    arguments = draw_twice((3, *sides, 4), (3, 3, 4, 5))

    def usual(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NUMBERS)

    fewer = functools.partial(winograd.convolve, padding=padding)
    actual, expected = (differentiate(f)(*arguments) for f in (fewer, usual))
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_of_fewer_multiplications_can_be_differentiated_twice():
    (x, kernel), (direction, _) = draw_twice((2, 4, 4, 3), (3, 3, 3, 3))

    def curvature(convolve):
        def total(x):
            return (convolve(x, kernel) ** 3).sum()

        return jax.jvp(jax.grad(total), (x,), (direction,))[1]

    def usual(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)

    fewer = functools.partial(winograd.convolve, padding=[(1, 1), (1, 1)])
    np.testing.assert_allclose(curvature(fewer), curvature(usual), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_convolution_of_fewer_multiplications_is_about_as_exact(dtype):
    (x, kernel), (cotangent, _) = draw_twice((4, 14, 14, 128), (3, 3, 128, 128))

    def results(convolve, dtype):
        y, gradient = jax.vjp(convolve, nn.relu(x).astype(dtype), kernel.astype(dtype))
        return [np.asarray(z, np.float64) for z in (y, *gradient(cotangent.astype(dtype)))]

    usual = functools.partial(
        convolutions.convolve_on_cpu, strides=(1, 1), padding=((1, 1), (1, 1))
    )
    fewer = functools.partial(winograd.convolve, padding=((1, 1), (1, 1)))
    with jax.enable_x64(True):
        exact_results = results(usual, jnp.float64)
        fewer_results = results(fewer, dtype)
    for actual, expected in zip(fewer_results, exact_results, strict=True):
        error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        # For sums of 128 * 9 products in float32, the usual way has an error of 2 to 3e-7.
        assert error < (1e-6 if dtype == jnp.float32 else 1e-14)


def convolve_images(x, kernel, padding=((1, 1), (1, 1)), strides=(1, 1), **options):
    options = {"dimension_numbers": NUMBERS} | options
    return convolutions.of_images(x, kernel, strides, padding, **options)


def count_products(x, kernel, **options):
    convolve = functools.partial(convolve_images, **options)
    return str(jax.make_jaxpr(convolve)(x, kernel)).count("dot_general")


@pytest.mark.parametrize(
    ("padding", "precision"),
    [
        ("SAME", None),
        ("VALID", "highest"),
        ([(2, 0), (0, 3)], ["highest", "highest"]),
        (((0, 1), (2, 2)), (lax.Precision.HIGHEST, lax.Precision.DEFAULT)),
    ],
)
@pytest.mark.usefixtures("one_device")
def test_wide_convolutions_take_fewer_multiplications_on_a_cpu(padding, precision):
    arguments = draw_twice((2, 7, 6, 64), (3, 3, 64, 64))
    options = {"padding": padding, "precision": precision}
    convolve = functools.partial(convolve_images, **options)
    assert count_products(*arguments[0], **options) == 16
    exact = str(jax.make_jaxpr(convolve)(*arguments[0])).count("HIGHEST")
    assert exact >= (16 if precision else 0)

    def usual(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NUMBERS)

    actual = differentiate(convolve)(*arguments)
    chex.assert_trees_all_close(actual, differentiate(usual)(*arguments), rtol=1e-3, atol=1e-3)
    eagerly = convolve(*arguments[0])
    np.testing.assert_allclose(eagerly, actual[0][0], rtol=1e-4, atol=1e-4)
    x, kernel = arguments[0]
    each = jax.vmap(convolve)(x[:, None], jnp.stack([kernel] * 2))
    np.testing.assert_allclose(each[:, 0], eagerly, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "features", "options"),
    [
        (63, 64, {}),
        (64, 63, {}),
        (64, 64, {"side": 5}),
        (64, 64, {"strides": (2, 2)}),
        (64, 64, {"dtype": jnp.bfloat16}),
        (64, 64, {"dtype": jnp.int32}),
        (64, 64, {"shape": (2, 3, 8)}),
        (64, 64, {"shape": (2, 8, 8), "padding": ((-1, 1), (1, 1))}),
        (64, 64, {"shape": (2, 2, 8), "padding": "VALID"}),
    ],
)
@pytest.mark.usefixtures("one_device")
def test_other_convolutions_take_the_usual_multiplications(channels, features, options):
    options = {"shape": (2, 6, 6), "dtype": jnp.float32, "side": 3} | options
    shape, dtype, side = (options.pop(name) for name in ("shape", "dtype", "side"))
    x, kernel = (jnp.ones(s, dtype) for s in ((*shape, channels), (side, side, channels, features)))
    assert count_products(x, kernel, **options) == 0
    padding, strides = options.get("padding", ((1, 1), (1, 1))), options.get("strides", (1, 1))
    expected = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NUMBERS)
    actual = convolve_images(x, kernel, **options)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("known", [True, False])
def test_several_devices_exchange_gradients_of_the_weights_themselves(known):
    (x, kernel), _ = draw_twice((4, 8, 8, 64), (3, 3, 64, 64))

    def gradient(x, kernel):
        return jax.grad(lambda kernel: jnp.square(convolve_images(x, kernel)).mean())(kernel)

    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    split, copied = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    with jax.set_mesh(mesh) if known else contextlib.nullcontext():
        jitted = jax.jit(gradient, in_shardings=(split, copied), out_shardings=copied)
        text = jitted.lower(x, kernel).compile().as_text()
    (exchanged,) = re.findall(r"= f32\[([\d,]+)\]\S* all-reduce\(", text)
    assert np.prod([int(size) for size in exchanged.split(",")]) == kernel.size


def test_wide_convolutions_take_fewer_multiplications_where_there_is_one_device(monkeypatch):
    arguments = jnp.ones((2, 8, 8, 64)), jnp.ones((3, 3, 64, 64))
    assert count_products(*arguments) == 0
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert count_products(*arguments) == 16
    with models.compiling_for(jax.devices()[0]):  # it may be one of several
        assert count_products(*arguments) == 0


@pytest.mark.usefixtures("one_device")
def test_an_empty_batch_is_convolved():
    convolved = convolve_images(jnp.ones((0, 8, 8, 64)), jnp.ones((3, 3, 64, 64)))
    assert convolved.shape == (0, 8, 8, 64)


@pytest.mark.usefixtures("one_device")
def test_a_wide_convolution_for_another_device_is_left_to_xla():
    arguments = jnp.ones((2, 8, 8, 64)), jnp.ones((3, 3, 64, 64))
    with models.compiling_for(types.SimpleNamespace(platform="gpu")):
        assert count_products(*arguments) == 0
    lowered = jax.jit(convolve_images).trace(*arguments).lower(lowering_platforms=("cuda",))
    assert "stablehlo.convolution" in lowered.as_text()
    assert "dot_general" not in lowered.as_text()


@pytest.mark.usefixtures("one_device")
def test_a_wide_convolution_of_a_batch_of_any_size_is_exported():
    exported = jax.export.export(jax.jit(convolve_images))(
        jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 8, 8, 64"), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32),
    )
    (x, kernel), _ = draw_twice((3, 8, 8, 64), (3, 3, 64, 64))
    actual, expected = exported.call(x, kernel), convolve_images(x, kernel)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


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
    options = {"dimension_numbers": NUMBERS} | options
    arguments = (x, kernel, (1, 1), ((1, 1), (1, 1)))
    expected = lax.conv_general_dilated(*arguments, **options)
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
        return jnp.square(convolve(x, kernel, *options.values(), dimension_numbers=NUMBERS)).sum()

    def accumulate(x, kernel):
        def add(total_gradient, part):
            return total_gradient + jax.grad(total, argnums=1)(part, kernel), None

        return lax.scan(add, jnp.zeros_like(kernel), x)[0]

    text = jax.jit(accumulate).lower(x, kernel).compile().as_text()
    assert "while(" in text
    # In other layouts its CPU backend computes convolutions in loops value by value.
    assert set(re.findall(r"dim_labels=(\S+?->\w+)", text)) <= {"b01f_01io->b01f"}


def test_patches_are_embedded_on_a_mesh_with_explicit_axes():
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Explicit,), devices=jax.devices()[:2])
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x, kernel = jnp.ones((4, 32, 32, 3)), jnp.ones((16, 16, 3, 5))

    def embed(x, kernel):
        return convolutions.patchwise(x, kernel, (16, 16), "VALID", dimension_numbers=NUMBERS)

    embedded = jax.jit(embed)(jax.device_put(x, split), jax.device_put(kernel, whole))
    np.testing.assert_array_equal(embedded, np.full((4, 2, 2, 5), 768.0))
