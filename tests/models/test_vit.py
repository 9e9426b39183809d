import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models, noise
from pnoise_jax.models import layers
from tests.models.drawing import draw_variables

TINY = {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))


def tiny(**options) -> models.VisionTransformer:
    return models.create_model("vit_ti_16", **{**TINY, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def test_parameter_names_and_shapes():
    block = {
        "norm1/scale": (16,),
        "norm1/bias": (16,),
        "attn/qkv/kernel": (16, 48),
        "attn/qkv/bias": (48,),
        "attn/proj/kernel": (16, 16),
        "attn/proj/bias": (16,),
        "norm2/scale": (16,),
        "norm2/bias": (16,),
        "mlp/fc1/kernel": (16, 64),
        "mlp/fc1/bias": (64,),
        "mlp/fc2/kernel": (64, 16),
        "mlp/fc2/bias": (16,),
    }
    expected = {
        "patch_embed/kernel": (4, 4, 3, 16),
        "patch_embed/bias": (16,),
        "cls_token": (1, 1, 16),
        "pos_embed": (1, 5, 16),
        **{f"block_1/{name}": shape for name, shape in block.items()},
        **{f"block_2/{name}": shape for name, shape in block.items()},
        "norm/scale": (16,),
        "norm/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }
    params = traverse_util.flatten_dict(tiny_variables()["params"], sep="/")
    assert {name: x.shape for name, x in params.items()} == expected


def test_initial_values_are_timms():
    model = tiny(dim=64, depth=1, mlp_dim=128, num_classes=64)
    key = jax.random.key(0, impl="rbg")  # compiles faster
    params = model.init(key, IMAGES)["params"]
    for name, x in traverse_util.flatten_dict(params, sep="/").items():
        if name == "patch_embed/kernel":  # uniform within ±1/sqrt(fan_in)
            bound = (4 * 4 * 3) ** -0.5
            assert 0.95 * bound < jnp.abs(x).max() <= bound
        elif name.endswith("bias"):
            assert not x.any(), name
        elif name.endswith("scale"):
            assert (x == 1).all(), name
        else:
            std = 1e-6 if name == "cls_token" else 0.02
            np.testing.assert_allclose(x.std(), std, rtol=0.3, err_msg=name)


def test_every_parameter_matters():
    def loss(params):
        return jnp.square(tiny().apply({"params": params}, IMAGES)).sum()

    gradients = jax.jit(jax.grad(loss))(tiny_variables()["params"])
    for name, gradient in traverse_util.flatten_dict(gradients, sep="/").items():
        assert jnp.isfinite(gradient).all(), name
        assert gradient.any(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 10}, "image_size=10 is not divisible by patch_size=4.*multiple of 4"),
        ({"image_size": (8, 6)}, r"image_size=\(8, 6\) is not divisible"),
        ({"image_size": 0}, r"image_size=\(0, 0\): give whole numbers"),
        ({"pooling": "max"}, 'pooling=\'max\' is unknown: use "token" or "mean"'),
        ({"class_token": False}, 'pooling="token" reads the class token.*use pooling="mean"'),
        ({"num_heads": 3}, "dim=16 is not divisible by num_heads=3"),
    ],
)
def test_contradicting_options_raise_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize("shape", [(3, 8, 12, 3), (3, 12, 8, 3), (8, 8, 3), (1, 3, 8, 8, 3)])
def test_images_of_another_shape_raise(shape):
    with pytest.raises(ValueError, match=r"shape .*, expected \(batch, 8, 8, channels\)") as error:
        tiny().apply(tiny_variables(), jnp.zeros(shape))
    assert str(shape) in str(error.value)


def test_images_need_not_be_square():
    model = tiny(image_size=(8, 12))
    images = jax.ShapeDtypeStruct((2, 8, 12, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    chex.assert_shape(variables["params"]["pos_embed"], (1, 7, 16))
    chex.assert_shape(jax.eval_shape(model.apply, variables, images), (2, 5))
    with pytest.raises(ValueError, match=r"expected \(batch, 8, 12, channels\)"):
        jax.eval_shape(model.apply, variables, jnp.zeros((2, 12, 8, 3)))


def test_dropout_is_on_in_training_only():
    model = tiny(dropout=0.5)

    def logits(seed: int, *, train: bool) -> jax.Array:
        rngs = {"dropout": jax.random.key(seed, impl="rbg")}
        return model.apply(tiny_variables(), IMAGES, train=train, rngs=rngs)

    plain = tiny().apply(tiny_variables(), IMAGES)
    chex.assert_trees_all_equal(logits(0, train=False), plain)
    chex.assert_trees_all_equal(logits(0, train=True), logits(0, train=True))
    assert (logits(0, train=True) != logits(1, train=True)).any()


def test_dropout_stands_where_timm_has_it():
    model = tiny(dropout=0.5)
    rngs = {"dropout": jax.random.key(0, impl="rbg")}
    _, state = model.apply(
        tiny_variables(), IMAGES, train=True, rngs=rngs, capture_intermediates=True, mutable=True
    )
    outputs = traverse_util.flatten_dict(state["intermediates"], sep="/")
    found = {path.removesuffix("/__call__") for path in outputs if "Dropout" in path}
    dropped = {path for path in found if "drop_path" not in path}
    block = {"attn/Dropout_0", "mlp/Dropout_0", "mlp/Dropout_1"}
    assert dropped == {"Dropout_0"} | {f"block_{i}/{name}" for i in (1, 2) for name in block}
    for path in dropped:
        (x,) = outputs[f"{path}/__call__"]
        assert 0.2 < (x == 0).mean() < 0.8, path


def test_bfloat16_compute_keeps_float32_parameters_and_logits():
    model = tiny(dtype="bfloat16")  # as a config gives it
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}

    expected = tiny().apply(tiny_variables(), IMAGES)
    logits, state = model.apply(
        tiny_variables(), IMAGES, capture_intermediates=True, mutable=["intermediates"]
    )
    chex.assert_type(logits, jnp.float32)
    np.testing.assert_allclose(logits, expected, atol=0.03 * jnp.abs(expected).max())
    outputs = traverse_util.flatten_dict(state["intermediates"], sep="/")
    in_float32 = {path for path, (x,) in outputs.items() if x.dtype != jnp.bfloat16}
    assert in_float32 == {"__call__", "norm/__call__", "head/__call__"}


# The tap -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_token", [True, False])
def test_the_taps_are_opened_once_with_all_they_need(class_token, monkeypatch):
    opened, tapped = [], []

    def open_taps(module, injection, **options):
        opened.append((injection, options))

        def taps(x, *, point, layer=None):
            tapped.append((layer, point, x.shape))
            return x

        return taps

    model = tiny(class_token=class_token, pooling="mean")
    variables = draw_variables(model, IMAGES)
    monkeypatch.setattr(noise, "open_taps", open_taps)
    mask = jnp.array([True, True, False])
    model.apply(variables, IMAGES, train=True, mask=mask, noise_strength=0.3)

    ((injection, options),) = opened
    assert injection is None
    assert options.pop("mask") is mask
    assert options == {
        "num_layers": 2,
        "train": True,
        "strength": 0.3,
        "index": None,
        "prefix_tokens": int(class_token),
    }
    tokens = (3, 4 + class_token, 16)
    assert tapped == [
        (None, "image", (3, 8, 8, 3)),
        (1, "block_input", tokens),
        (1, "attention_input", tokens),
        (2, "block_input", tokens),
        (2, "attention_input", tokens),
    ]


@pytest.mark.parametrize("point", ["block_input", "attention_input"])
def test_where_the_noise_enters_a_block(point):
    """At the block's input the residual carries the noise on; at the attention's it does not."""

    def taps(x, *, layer, point):
        assert layer == 1
        return 3 * x if point == here else x

    here = point
    params = tiny_variables()["params"]["block_1"]
    x = jax.random.normal(jax.random.key(0), (3, 5, 16))
    attention = functools.partial(layers.Attention, num_heads=2)
    block = layers.Block(layer=1, attention=attention, mlp_dim=64)
    actual = block.apply({"params": params}, x, taps)

    def part(name: str, module: nn.Module, x: jax.Array) -> jax.Array:
        return module.apply({"params": params[name]}, x)

    norm = nn.LayerNorm(epsilon=1e-6)
    x = taps(x, layer=1, point="block_input")
    h = part("norm1", norm, x)
    h = 3 * h if here == "attention_input" else h
    x = x + part("attn", layers.Attention(num_heads=2), h)
    x = x + part("mlp", layers.Mlp(hidden_dim=64), part("norm2", norm, x))
    chex.assert_trees_all_close(actual, x, rtol=1e-6, atol=1e-6)


def test_noise_on_the_image_is_what_the_patches_are_cut_from(monkeypatch):
    def taps(x, *, point, layer=None):
        return 2 * x if point == "image" else x

    expected = tiny().apply(tiny_variables(), 2 * IMAGES)
    monkeypatch.setattr(noise, "open_taps", lambda *_, **__: taps)
    chex.assert_trees_all_equal(tiny().apply(tiny_variables(), IMAGES), expected)
