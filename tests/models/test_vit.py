import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models, noise
from pnoise_jax.models.parts import layers
from pnoise_jax.models.parts.attention import Attention
from tests.models import observing
from tests.models.drawing import draw_variables

TINY = {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
LEAVES = ("scale", "bias")
IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))


def tiny(**options) -> models.VisionTransformer:
    return models.create_model("vit_ti_16", **{**TINY, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def test_parameter_names_and_shapes():
    block = observing.block_shapes(16)
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


REGISTERS = {"register_tokens": 3, "layer_scale": 0.5, "qkv_bias": False}
REG_GAP = REGISTERS | {
    "class_token": False,
    "prefix_positions": False,
    "pooling": "mean_then_norm",
    "pre_norm": True,
}


@pytest.mark.parametrize(
    ("options", "added", "missing"),
    [
        ({"prefix_positions": False}, {"pos_embed": (1, 4, 16)}, ()),
        (
            REGISTERS,
            {
                "reg_token": (1, 3, 16),
                "pos_embed": (1, 8, 16),
                **{f"block_{n}/gamma_{m}": (16,) for n in (1, 2) for m in (1, 2)},
            },
            ("block_1/attn/qkv/bias", "block_2/attn/qkv/bias"),
        ),
        (
            REG_GAP,
            {
                "reg_token": (1, 3, 16),
                "pos_embed": (1, 4, 16),
                **{f"{norm}/{leaf}": (16,) for norm in ("norm_pre", "fc_norm") for leaf in LEAVES},
                **{f"block_{n}/gamma_{m}": (16,) for n in (1, 2) for m in (1, 2)},
            },
            (
                *("block_1/attn/qkv/bias", "block_2/attn/qkv/bias", "cls_token"),
                *("norm/scale", "norm/bias", "patch_embed/bias"),
            ),
        ),
    ],
)
def test_options_add_and_remove_parameters(options, added, missing):
    plain, params = (
        {
            name: x.shape
            for name, x in traverse_util.flatten_dict(variables["params"], sep="/").items()
        }
        for variables in (tiny_variables(), draw_variables(tiny(**options), IMAGES))
    )
    assert params == {name: x for name, x in (plain | added).items() if name not in missing}


def test_initial_values_of_the_parts_that_options_add():
    model = tiny(**REG_GAP | {"dim": 64, "depth": 1})
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), IMAGES)["params"]
    np.testing.assert_allclose(params["reg_token"].std(), 1e-6, rtol=0.3)
    for name in ("gamma_1", "gamma_2"):
        np.testing.assert_array_equal(params["block_1"][name], 0.5)
    for name in ("norm_pre", "fc_norm"):
        assert (params[name]["scale"] == 1).all()


@pytest.mark.parametrize("prefix_positions", [True, False])
def test_learned_tokens_stand_in_front_in_timms_order(prefix_positions):
    """The class token, the registers, the patches."""
    model = tiny(register_tokens=3, prefix_positions=prefix_positions)
    variables = draw_variables(model, IMAGES)
    _, inputs = model.apply(variables, IMAGES, (1,), method="record_inputs")
    params = variables["params"]
    learned = jnp.concatenate([params["cls_token"], params["reg_token"]], axis=1)
    if prefix_positions:
        learned = learned + params["pos_embed"][:, :4]
    chex.assert_shape(inputs[1], (3, 8, 16))
    for tokens in inputs[1]:
        np.testing.assert_allclose(tokens[:4], learned[0], rtol=1e-6)


@pytest.mark.parametrize("pooling", ["token", "mean", "mean_then_norm"])
def test_the_head_reads_no_register(pooling):
    """The blocks do nothing: their scales are 0 here."""
    model = tiny(register_tokens=3, layer_scale=1.0, pooling=pooling)
    variables = draw_variables(model, IMAGES)
    for block in ("block_1", "block_2"):
        for name in ("gamma_1", "gamma_2"):
            variables["params"][block][name] = jnp.zeros(16)
    x = jax.random.normal(jax.random.key(3), (3, 8, 16))
    read = [
        bool(
            (
                _resume(model, variables, x.at[:, token].add(x[0, 0]))
                != _resume(model, variables, x)
            ).any()
        )
        for token in range(8)
    ]
    assert read == [pooling == "token", False, False, False, *([pooling != "token"] * 4)]


def _resume(model, variables, x):
    return model.apply(variables, x, 1, method="resume")


def test_registers_are_prefix_tokens():
    injection = noise.Injection(
        noise.Gaussian(), layer=1, tokens="patch", point="block_input", inference=True
    )
    model = tiny(register_tokens=3, injection=injection)
    ((options,), _) = observing.taps(model, draw_variables(model, IMAGES), IMAGES)
    assert options["prefix_tokens"] == 4
    assert tiny(**REG_GAP).prefix_tokens == 3


def test_initial_values_are_timms():
    model = tiny(dim=64, depth=1, mlp_dim=128, num_classes=64)
    key = jax.random.key(0, impl="rbg")  # compiles faster
    params = jax.jit(model.init)(key, IMAGES)["params"]
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
        ({"pooling": "max"}, 'pooling=\'max\' is unknown: use "token", "mean" or "mean_then_norm"'),
        ({"distilled": True, "register_tokens": 1}, "DeiT, which has no registers and a position"),
        ({"distilled": True, "prefix_positions": False}, "use it with register_tokens=0 and pre"),
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


# The tap -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_token", [True, False])
def test_the_taps_know_the_prefix_tokens(class_token):
    model = tiny(class_token=class_token, pooling="mean")
    ((options,), tapped) = observing.taps(model, draw_variables(model, IMAGES), IMAGES)
    assert options["prefix_tokens"] == int(class_token)
    points = ("block_input", "attention_input")
    assert tapped == [
        (None, "image", (3, 8, 8, 3)),
        *((layer, point, (3, 4 + class_token, 16)) for layer in (1, 2) for point in points),
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
    attention = functools.partial(Attention, num_heads=2)
    block = layers.Block(layer=1, attention=attention, mlp_dim=64)
    actual = block.apply({"params": params}, x, taps)

    def part(name: str, module: nn.Module, x: jax.Array) -> jax.Array:
        return module.apply({"params": params[name]}, x)

    norm = nn.LayerNorm(epsilon=1e-6)
    x = taps(x, layer=1, point="block_input")
    h = part("norm1", norm, x)
    h = 3 * h if here == "attention_input" else h
    x = x + part("attn", Attention(num_heads=2), h)
    x = x + part("mlp", layers.Mlp(hidden_dim=64), part("norm2", norm, x))
    chex.assert_trees_all_close(actual, x, rtol=1e-6, atol=1e-6)


def test_patches_are_cut_from_the_noisy_image(monkeypatch):
    class Doubled(noise.Taps):
        def __call__(self, x, *, point, layer=0):
            return 2 * x if point == "image" else x

    expected = tiny().apply(tiny_variables(), 2 * IMAGES)
    taps = Doubled((), num_layers=2, prefix_tokens=1)
    monkeypatch.setattr(noise, "open_taps", lambda *_, **__: taps)
    chex.assert_trees_all_equal(tiny().apply(tiny_variables(), IMAGES), expected)
