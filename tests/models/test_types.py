"""The dtypes of models, whatever JAX's global switches say.

Those of every named model are in test_registry.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models

pytestmark = pytest.mark.long

SMALL = {
    "vit_ti_16": {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 1, "num_heads": 2},
    "beit_b_16": {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 1, "num_heads": 2},
    "convit_ti": {
        "patch_size": 4,
        "image_size": 8,
        "dim": 16,
        "depth": 2,
        "num_heads": 4,
        "local_layers": 1,
    },
    "swin_t": {
        "patch_size": 2,
        "image_size": 8,
        "dim": 16,
        "head_dim": 8,
        "stage_sizes": (2, 1),
        "window_size": 2,
    },
    "swinv2_t": {
        "patch_size": 2,
        "image_size": 8,
        "dim": 16,
        "head_dim": 8,
        "stage_sizes": (2, 1),
        "window_size": 2,
    },
    "vit_wee_16_reg1": {
        "patch_size": 4,
        "image_size": 8,
        "dim": 16,
        "depth": 1,
        "num_heads": 2,
    },
    "vit_parallel_s_14": {
        "patch_size": 4,
        "image_size": 8,
        "dim": 16,
        "depth": 1,
        "num_heads": 2,
    },
    "maxvit_t": {
        "dim": 8,
        "stem_dim": 4,
        "head_dim": 4,
        "stage_sizes": (1,),
        "image_size": 32,
    },
    "davit_t": {"dim": 16, "head_dim": 8, "stage_sizes": (2,), "window_size": 2},
    "resnet18": {"stage_sizes": (1, 1), "width": 4},
}
FLOAT32 = {jnp.dtype("float32")}


def images_of(model, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((2, *(model.image_shape or (32, 32)), 3), dtype)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.flax_promotes)]
)
def test_training_keeps_float32_with_x64_enabled(name, dtype):
    """With stochastic depth; gradients have their parameters' dtypes."""
    options = SMALL[name] | {"drop_path": 0.1, "dtype": jnp.dtype(dtype)}
    model = models.create_model(name, num_classes=10, **options)

    def loss(params, variables, images):
        logits, updated = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return logits.mean(), (logits, updated)

    def call(images):
        variables = model.init(jax.random.key(0), images)
        gradients, aux = jax.grad(loss, has_aux=True)(variables["params"], variables, images)
        return gradients, aux

    with jax.enable_x64(True):
        results = jax.eval_shape(call, images_of(model))
    assert {x.dtype for x in jax.tree.leaves(results)} == FLOAT32


@pytest.mark.parametrize("name", SMALL)
def test_no_promotion_is_implicit(name):
    model = models.create_model(name, num_classes=10, **SMALL[name])
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        variables = jax.eval_shape(model.init, jax.random.key(0), images_of(model))
        jax.eval_shape(model.apply, variables, images_of(model))


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_bitwise_the_same_with_x64_enabled(name):
    model = models.create_model(name, num_classes=10, **SMALL[name])
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images_of(model))
    variables, images = jax.tree.map(
        lambda x: rng.uniform(0.1, 1.0, x.shape).astype(np.float32), (shapes, images_of(model))
    )
    plain = jax.jit(model.apply)(variables, images)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.jit(model.apply)(variables, images), plain)
