"""DaViT: properties that its logits, compared in test_golden, do not name."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from pnoise_jax import models
from pnoise_jax.models import davit
from pnoise_jax.models.parts import convolutions, layers
from pnoise_jax.models.parts.attention import Attention
from pnoise_jax.models.parts.windows import WindowAttention, Windows
from tests.models import observing
from tests.models.drawing import draw_variables

TINY = {"dim": 8, "head_dim": 4, "stage_sizes": (2, 2), "window_size": 3, "num_classes": 5}
# A grid of 5 x 4 tokens after the stem, and of 3 x 2 after that.
IMAGES = jax.random.normal(jax.random.key(1), (3, 18, 14, 3))


def tiny(**options) -> models.DaViT:
    return models.create_model("davit_t", **{**TINY, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def drawn(module: nn.Module, x: jax.Array) -> dict:
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)


def test_parameter_names_and_shapes():
    def block(dim: int) -> dict[str, tuple[int, ...]]:
        encodings = {}
        for name in ("cpe1", "cpe2"):
            encodings |= {f"{name}/proj/kernel": (3, 3, 1, dim), f"{name}/proj/bias": (dim,)}
        return observing.block_shapes(dim) | encodings

    expected = {
        "patch_embed/kernel": (7, 7, 3, 8),
        "patch_embed/bias": (8,),
        "patch_norm/scale": (8,),
        "patch_norm/bias": (8,),
        **{f"stage1_block{n}/{name}": shape for n in (1, 2) for name, shape in block(8).items()},
        "merge_2/norm/scale": (8,),
        "merge_2/norm/bias": (8,),
        "merge_2/conv/kernel": (2, 2, 8, 16),
        "merge_2/conv/bias": (16,),
        **{f"stage2_block{n}/{name}": shape for n in (1, 2) for name, shape in block(16).items()},
        "fc_norm/scale": (16,),
        "fc_norm/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }
    params = traverse_util.flatten_dict(tiny_variables()["params"], sep="/")
    assert {name: x.shape for name, x in params.items()} == expected


def test_blocks_are_layers_and_representations_are_maps():
    model = tiny()
    ((options,), tapped) = observing.taps(model, tiny_variables(), IMAGES)
    assert options["num_layers"] == model.num_layers == 4
    assert options["prefix_tokens"] == 0
    maps = {1: (3, 5, 4, 8), 2: (3, 5, 4, 8), 3: (3, 3, 2, 16), 4: (3, 3, 2, 16)}
    assert tapped == [
        (None, "image", IMAGES.shape),
        *(
            (layer, point, shape)
            for layer, shape in maps.items()
            for point in ("block_input", "attention_input")
        ),
    ]


def test_odd_blocks_attend_within_windows_and_even_ones_between_channels():
    blocks = []

    def observe(method, args, kwargs, context):
        if isinstance(context.module, Attention) and context.method_name == "__call__":
            blocks.append((context.module.path[0], type(context.module), context.module.num_heads))
        return method(*args, **kwargs)

    with nn.intercept_methods(observe):
        jax.eval_shape(tiny().apply, tiny_variables(), IMAGES)
    assert blocks == [
        ("stage1_block1", WindowAttention, 2),
        ("stage1_block2", davit.ChannelAttention, 2),
        ("stage2_block1", WindowAttention, 4),
        ("stage2_block2", davit.ChannelAttention, 4),
    ]


@pytest.mark.parametrize("rows", [2, 5])  # the scale does not depend on the number of tokens
def test_channel_attention_is_the_published_one(rows):
    """Keys attend to values, over the values' channels; the weights apply to the queries."""
    heads, head_dim = 2, 3
    dim = heads * head_dim
    x = np.random.default_rng(1).normal(size=(2, rows, 4, dim)).astype(np.float32)
    attention = davit.ChannelAttention(num_heads=heads)
    variables = drawn(attention, x)
    params = variables["params"]
    tokens = x.reshape(2, -1, dim).astype(float)
    qkv = tokens @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    expected = np.zeros_like(tokens)
    for example in range(2):
        for head in range(heads):
            query, key, value = (
                qkv[example, :, part * dim + head * head_dim :][:, :head_dim] for part in range(3)
            )
            logits = key.T @ value / np.sqrt(head_dim)
            weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            expected[example, :, head * head_dim : (head + 1) * head_dim] = (weights @ query.T).T
    expected = expected @ params["proj"]["kernel"] + params["proj"]["bias"]
    actual = jax.jit(attention.apply)(variables, x)
    np.testing.assert_allclose(actual, expected.reshape(x.shape), rtol=1e-4, atol=1e-4)


def test_channel_attention_refuses_a_gate_of_tokens():
    x = jnp.zeros((1, 2, 2, 4))
    gate = functools.partial(nn.Dense, 1, name="gate")
    attention = davit.ChannelAttention(num_heads=2, key_gate=lambda **_: gate())
    with pytest.raises(ValueError, match="no logits of tokens for a bias or a gate"):
        jax.eval_shape(attention.init, jax.random.key(0), x)


def test_padding_of_a_window_takes_part_in_its_attention():
    """Their keys and values are the biases."""
    x = np.random.default_rng(1).normal(size=(1, 1, 2, 4)).astype(np.float32)
    attention = WindowAttention(windows=Windows((1, 2), (2, 2)), num_heads=1)
    variables = drawn(attention, x)
    filled = np.concatenate([x[:, 0], np.zeros_like(x[:, 0])], axis=1)
    plain = Attention(num_heads=1).apply(variables, filled)
    np.testing.assert_allclose(attention.apply(variables, x)[:, 0], plain[:, :2], rtol=1e-5)


def test_both_blocks_of_a_pair_have_the_same_drop_path_rate():
    model = tiny(stage_sizes=(2, 4), drop_path=0.4)
    rates = {}

    def observe(method, args, kwargs, context):
        if isinstance(context.module, layers.DropPath):
            rates.setdefault(context.module.path[0], set()).add(context.module.rate)
        return method(*args, **kwargs)

    with nn.intercept_methods(observe):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    expected = [0.0, 0.0, 0.2, 0.2, 0.4, 0.4]
    assert [sorted(block_rates) for block_rates in rates.values()] == [
        [pytest.approx(x)] for x in expected
    ]
    assert list(rates) == [model.layer_name(layer) for layer in range(1, 7)]


@pytest.mark.parametrize("shape", [(1, 1), (18, 14), (16, 40), (33, 7)])
def test_images_of_any_size(shape):
    images = jax.ShapeDtypeStruct((2, *shape, 3), jnp.float32)
    logits = jax.eval_shape(tiny().apply, tiny_variables(), images)
    chex.assert_shape(logits, (2, 5))


def test_images_without_a_batch_axis_raise():
    with pytest.raises(ValueError, match=r"shape \(18, 14, 3\), expected \(batch, height, width, "):
        tiny().apply(tiny_variables(), IMAGES[0])


def test_images_are_padded_at_the_right_and_the_bottom():
    """18 x 14 pixels give the same as 20 x 16 with zeros there."""
    filled = jnp.pad(IMAGES, ((0, 0), (0, 2), (0, 2), (0, 0)))
    apply = jax.jit(tiny().apply)
    expected = apply(tiny_variables(), filled)
    np.testing.assert_allclose(apply(tiny_variables(), IMAGES), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, "SAME"), (3, "VALID"), (1, (0, 2))])
def test_depthwise_convolutions_are_convolutions(stride, padding):
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 4))
    common = {"strides": (stride, stride), "padding": padding, "feature_group_count": 4}
    ours, plain = (
        nn.Conv(4, (3, 3), **common, **special)
        for special in ({"conv_general_dilated": convolutions.depthwise}, {})
    )
    variables = drawn(plain, x)

    def loss(variables, x, conv):
        y = conv.apply(variables, x)
        return jnp.sin(y).sum(), y

    for value, expected in zip(
        *(
            jax.tree.leaves(
                jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), static_argnums=2)(
                    variables, x, conv
                )
            )
            for conv in (ours, plain)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_an_exported_program_takes_batches_of_any_size():
    apply = jax.jit(tiny().apply)
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *IMAGES.shape[1:]), jnp.float32)
    program = jax.export.export(apply)(tiny_variables(), images)
    expected = apply(tiny_variables(), IMAGES)
    chex.assert_trees_all_close(program.call(tiny_variables(), IMAGES), expected, rtol=1e-5)
