"""Evaluations give the same numbers whatever JAX's global switches say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import evaluation, models, noise, parallel
from tests.models.test_types import SMALL

SMALL_VIT = SMALL["vit_ti_16"] | {"depth": 2}


@pytest.mark.parametrize(
    "each",
    [noise.Gaussian(), noise.LinearTransform(noise.Optimal(), implementation="matmul")],
    ids=["gaussian", "optimal"],
)
def test_the_same_predictions_with_64_bits_and_strict_promotion(digits, each):
    """At a layer that is drawn anew for each batch."""
    injection = noise.Injection(each, layer="random")
    model = models.create_model("vit_ti_16", num_classes=10, injection=injection, **SMALL_VIT)
    images = np.zeros((1, 8, 8, 1), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def predict():
        return evaluation.predict(
            model,
            variables,
            digits,
            evaluation.Protocol(noise=True, order="shuffled", batch_size=64),
            mesh=parallel.data_mesh(),
            mean=(0.5,),
            std=(0.5,),
        )

    plain = predict()
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        switched = predict()
    for name in ("rank", "nll", "predicted"):
        np.testing.assert_array_equal(getattr(switched, name), getattr(plain, name))
