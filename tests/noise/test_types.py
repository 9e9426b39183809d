"""The dtypes of noises, whatever JAX's global switches say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import noise

NOISES = {
    "gaussian": noise.Gaussian(mean=0.1, std=2.0, strength=0.5),
    "salt and pepper": noise.SaltAndPepper(0.5),
    "salt and pepper of the batch": noise.SaltAndPepper(0.5, extremes="batch", group_size=2),
    "erase": noise.Erase(0.5),
    "shift": noise.LinearTransform(noise.CyclicShift(0.3)),
    "shift of tokens": noise.LinearTransform(noise.CyclicShift(0.3), axis="tokens"),
    "shift by matmul": noise.LinearTransform(noise.CyclicShift(0.3), implementation="matmul"),
    "optimal": noise.LinearTransform(noise.Optimal(0.7)),
    "optimal in groups": noise.LinearTransform(noise.Optimal(), group_size=2),
    "optimal by matmul": noise.LinearTransform(noise.Optimal(), implementation="matmul"),
    "dense": noise.LinearTransform(noise.Dense(np.eye(4)[::-1]), implementation="matmul"),
}
SWITCHES = {
    "64 bits": lambda: jax.enable_x64(True),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
}


@pytest.fixture(params=NOISES)
def kind(request):
    return NOISES[request.param]


def apply(kind, x, *, mask=None, strength=None):
    return kind(jax.random.key(3), x, mask=mask, strength=strength)


def images(dtype):
    return np.random.default_rng(0).normal(size=(4, 6, 5)).astype(dtype)


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_is_kept_under_any_switch(kind, switch, dtype):
    x, mask = jax.ShapeDtypeStruct((4, 6, 5), dtype), np.array([True, True, False, True])

    def function(x):
        return apply(kind, x), apply(kind, x, mask=mask, strength=np.float32(0.25))

    with SWITCHES[switch]():
        noisy = jax.eval_shape(function, x)
        gradient = jax.eval_shape(jax.grad(lambda x: apply(kind, x).astype(jnp.float32).sum()), x)
    assert [y.dtype for y in (*noisy, gradient)] == [x.dtype] * 3


def test_results_are_bitwise_the_same_with_x64_enabled(kind):
    x = jnp.asarray(images("float32"))
    plain = apply(kind, x)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(apply(kind, x), plain)


@pytest.mark.parametrize("bits", [32, 64])
def test_numpy_float64_becomes_jaxs_default_float(kind, bits):
    """As everywhere in JAX: float32 unless it is set to 64 bits, and without a warning."""
    with jax.enable_x64(bits == 64):
        assert apply(kind, images("float64")).dtype == f"float{bits}"


def test_a_float64_strength_keeps_the_representations_dtype(kind):
    with jax.enable_x64(True):
        noisy = jax.eval_shape(
            lambda x, strength: apply(kind, x, strength=strength),
            jax.ShapeDtypeStruct((4, 6, 5), "float32"),
            jax.ShapeDtypeStruct((), "float64"),
        )
    assert noisy.dtype == "float32"


@pytest.mark.parametrize("quality", [noise.CyclicShift(0.3), noise.Optimal(), noise.Dense([[0.5]])])
def test_quality_matrices_are_float32(quality):
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        assert quality.matrix(1).dtype == np.float32
        assert quality.matrix(1, mask=np.array([True])).dtype == np.float32
        assert quality.matrix(1, strength=np.float64(0.5)).dtype == np.float32
