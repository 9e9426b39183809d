"""Floating-point operations, counted before a function is compiled."""

import jax
import jax.numpy as jnp
import pytest

from launch.benchmark import workload
from pnoise_jax import models, parallel
from pnoise_jax.studies.ahead_of_time import count_flops


def test_flops_are_those_of_products_and_convolutions():
    def function(x, kernel, matrix):
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", feature_group_count=2)
        x = jax.lax.platform_dependent(x, cpu=lambda x: x + 1, default=lambda x: x @ matrix)
        return jax.jit(lambda x: x.reshape(-1, 4) @ matrix)(x).sum()

    shapes = ((3, 6, 8, 8), (10, 3, 5, 5), (4, 4))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    convolution = 2 * (3 * 10 * 4 * 4) * (3 * 5 * 5)
    product = 2 * (3 * 10 * 4) * 4 * 4
    # If one of several branches is computed, the one with more counts.
    assert count_flops(function, *arrays) == convolution + 2 * product


def test_a_step_of_a_vit_has_the_flops_that_timm_states():
    model = models.create_model("vit_ti_16", all_tokens=True)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = workload.abstract_variables(model, 224)
    # 1.26 billion multiplications, a little more than the 1.25 of products that do not depend on
    # how attention is computed.
    assert count_flops(model.apply, variables, images) == pytest.approx(2.51e9, rel=0.01)


def test_loops_count_as_often_as_they_run():
    matrix = jax.ShapeDtypeStruct((16, 16), jnp.float32)

    def repeated(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=7)[0].sum()

    product = 2 * 16**3
    assert count_flops(repeated, matrix) == 7 * product
    assert count_flops(jax.grad(repeated), matrix) == 3 * 7 * product
    recomputed = jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda x: jnp.sin(x @ x) @ x)(x)))
    assert count_flops(recomputed, matrix) == (2 + 1 + 4) * product


def test_parts_count_on_every_device():
    mesh = parallel.training_mesh(2)
    axes = jax.P(("data", "fsdp"))
    halves = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=axes, out_specs=axes)
    assert count_flops(halves, jax.ShapeDtypeStruct((32, 8), jnp.float32)) == 8 * 2 * 4 * 4 * 8
