import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models, noise
from tests.models import observing
from tests.models.drawing import draw_variables

TINY = {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))


def tiny(**options) -> models.Beit:
    return models.create_model("beit_b_16", **{**TINY, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def test_parameter_names_and_shapes():
    attention = {
        "relative_position_bias_table": (3 * 3 + 3, 2),
        "qkv/kernel": (16, 48),
        "q_bias": (16,),
        "v_bias": (16,),
    }
    scales = {"gamma_1": (16,), "gamma_2": (16,)}
    block = observing.block_shapes(16, attention) | scales
    expected = {
        "patch_embed/kernel": (4, 4, 3, 16),
        "patch_embed/bias": (16,),
        "cls_token": (1, 1, 16),
        **{f"block_1/{name}": shape for name, shape in block.items()},
        **{f"block_2/{name}": shape for name, shape in block.items()},
        "fc_norm/scale": (16,),
        "fc_norm/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }
    params = traverse_util.flatten_dict(tiny_variables()["params"], sep="/")
    assert {name: x.shape for name, x in params.items()} == expected


@pytest.mark.parametrize(
    ("name", "parameters"), [("beit_b_16", 86_744_104), ("beit_l_16", 304_998_888)]
)
def test_parameters_at_384_pixels(name, parameters):
    """timm's beit_base_patch16_384 and beit_large_patch16_384."""
    model = models.create_model(name, image_size=384)
    images = jax.ShapeDtypeStruct((1, 384, 384, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == parameters


def test_initial_values_are_timms():
    model = tiny(dim=64, mlp_dim=128, num_classes=64)
    key = jax.random.key(0, impl="rbg")  # compiles faster
    params = jax.jit(model.init)(key, IMAGES)["params"]
    smaller = {"head/kernel": 0.001}
    for layer in (1, 2):
        for name in ("attn/proj", "mlp/fc2"):
            smaller[f"block_{layer}/{name}/kernel"] = (2 * layer) ** -0.5
    for name, x in traverse_util.flatten_dict(params, sep="/").items():
        if name == "patch_embed/kernel":  # uniform within ±1/sqrt(fan_in)
            bound = (4 * 4 * 3) ** -0.5
            assert 0.95 * bound < jnp.abs(x).max() <= bound
        elif name.endswith(("bias", "bias_table")):
            assert not x.any(), name
        elif name.endswith("scale"):
            assert (x == 1).all(), name
        elif "gamma" in name:
            np.testing.assert_allclose(x, 0.1, err_msg=name)
        else:
            std = 0.02 * smaller.get(name, 1)
            rtol = 0.3 if name == "cls_token" else 0.05
            np.testing.assert_allclose(x.std(), std, rtol=rtol, err_msg=name)


def test_every_parameter_matters():
    def loss(params):
        return jnp.square(tiny().apply({"params": params}, IMAGES)).sum()

    gradients = jax.jit(jax.grad(loss))(tiny_variables()["params"])
    for name, gradient in traverse_util.flatten_dict(gradients, sep="/").items():
        assert jnp.isfinite(gradient).all(), name
        if name == "block_2/attn/relative_position_bias_table":
            # The head reads only patches, so what the last class token attends to has no effect.
            assert gradient[:9].any(axis=1).all()
            assert gradient[9:].any(axis=1).tolist() == [False, True, False]
        elif name.endswith("table"):
            assert gradient.any(axis=1).all()
        else:
            assert gradient.any(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 10}, "image_size=10 is not divisible by patch_size=4.*multiple of 4"),
        ({"image_size": (8, 6)}, r"image_size=\(8, 6\) is not divisible"),
        ({"num_heads": 3}, "dim=16 is not divisible by num_heads=3"),
    ],
)
def test_contradicting_options_raise_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize("shape", [(3, 8, 12, 3), (8, 8, 3)])
def test_images_of_another_shape_raise(shape):
    with pytest.raises(ValueError, match=r"shape .*, expected \(batch, 8, 8, channels\)"):
        tiny().apply(tiny_variables(), jnp.zeros(shape))


def test_the_taps_see_the_class_token():
    ((options,), tapped) = observing.taps(tiny(), tiny_variables(), IMAGES)
    assert options["prefix_tokens"] == 1
    points = ("block_input", "attention_input")
    assert tapped == [
        (None, "image", (3, 8, 8, 3)),
        *((layer, point, (3, 5, 16)) for layer in (1, 2) for point in points),
    ]


@pytest.mark.parametrize("point", ["block_input", "attention_input"])
def test_where_the_noise_enters_a_block(point):
    """At the block's input the residual carries the noise on; at the attention's it does not."""
    shift = noise.LinearTransform(noise.CyclicShift(0.3))
    model = tiny(injection=noise.Injection(shift, layer=1, point=point, inference=True))
    variables = tiny_variables()
    params = variables["params"] | {
        "block_1": variables["params"]["block_1"] | {"gamma_1": jnp.zeros(16)}  # no attention
    }
    logits = [jax.jit(m.apply)({"params": params}, IMAGES) for m in (model, tiny())]
    differs = jnp.abs(logits[0] - logits[1]).max() > 1e-3
    assert differs == (point == "block_input")
