import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models, noise
from pnoise_jax.models import swin_v2
from pnoise_jax.models.parts import layers
from pnoise_jax.models.parts.windows import Windows
from tests.models import observing
from tests.models.drawing import draw_variables

# Grids of 5 x 4 and 3 x 2 tokens.
TINY = {"patch_size": 2, "image_size": (10, 8), "dim": 8, "head_dim": 4, "stage_sizes": (2, 1)}
TINY |= {"window_size": 3, "num_classes": 5}
IMAGES = jax.random.normal(jax.random.key(1), (3, 10, 8, 3))


def tiny(**options) -> models.SwinTransformerV2:
    return models.create_model("swinv2_t", **{**TINY, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def test_parameter_names_and_shapes():
    """The same for windows of any size."""

    def block(dim: int) -> dict[str, tuple[int, ...]]:
        heads = dim // 4
        attention = {
            "qkv/kernel": (dim, 3 * dim),
            "q_bias": (dim,),
            "v_bias": (dim,),
            "logit_scale": (heads, 1, 1),
            "cpb_fc1/kernel": (2, 512),
            "cpb_fc1/bias": (512,),
            "cpb_fc2/kernel": (512, heads),
        }
        return observing.block_shapes(dim, attention)

    expected = {
        "patch_embed/kernel": (2, 2, 3, 8),
        "patch_embed/bias": (8,),
        "patch_norm/scale": (8,),
        "patch_norm/bias": (8,),
        **{f"stage1_block1/{name}": shape for name, shape in block(8).items()},
        **{f"stage1_block2/{name}": shape for name, shape in block(8).items()},
        "merge_2/norm/scale": (16,),
        "merge_2/norm/bias": (16,),
        "merge_2/reduction/kernel": (32, 16),
        **{f"stage2_block1/{name}": shape for name, shape in block(16).items()},
        "norm/scale": (16,),
        "norm/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }
    for model in (tiny(), tiny(window_size=2), tiny(pretrained_window_sizes=(2, 0))):
        shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)["params"]
        params = traverse_util.flatten_dict(shapes, sep="/")
        assert {name: x.shape for name, x in params.items()} == expected


def test_initial_values_are_timms():
    model = tiny(dim=32, head_dim=4, stage_sizes=(1, 1))
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), IMAGES)["params"]
    for name, x in traverse_util.flatten_dict(params, sep="/").items():
        if name == "patch_embed/kernel":  # uniform within ±1/sqrt(fan_in)
            bound = (2 * 2 * 3) ** -0.5
            assert 0.95 * bound < jnp.abs(x).max() <= bound
        elif name.endswith("logit_scale"):
            np.testing.assert_allclose(x, np.log(10), rtol=1e-6)
        elif name.endswith("bias"):
            assert not x.any(), name
        elif name.endswith("scale"):
            assert (x == float("block" not in name)).all(), name
        else:
            np.testing.assert_allclose(x.std(), 0.02, rtol=0.3, err_msg=name)


def test_a_fresh_models_blocks_do_nothing():
    model = tiny()
    variables = jax.jit(model.init)(jax.random.key(0, impl="rbg"), IMAGES)
    record = functools.partial(model.apply, method="record_inputs")
    _, inputs = jax.jit(record, static_argnums=2)(variables, IMAGES, (1, 2))
    np.testing.assert_array_equal(inputs[1], inputs[2])


def test_every_parameter_matters():
    def loss(params):
        return jnp.square(tiny().apply({"params": params}, IMAGES)).sum()

    gradients = jax.jit(jax.grad(loss))(tiny_variables()["params"])
    for name, gradient in traverse_util.flatten_dict(gradients, sep="/").items():
        assert jnp.isfinite(gradient).all(), name
        assert gradient.any(), name


# Attention ----------------------------------------------------------------------------------------


def attention(window: tuple[int, int] = (2, 2), grid: tuple[int, int] = (4, 4), **options):
    windows = Windows(grid, window, options.pop("shift", (0, 0)))
    return swin_v2.CosineWindowAttention(
        windows=windows, num_heads=2, **{"unit": window, **options}
    )


@functools.partial(jax.jit, static_argnums=0)
def apply(module, variables, x):
    """As one program: eagerly, each of its operations would be compiled."""
    return module.apply(variables, x)


def draw(module, x) -> dict:
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape)), shapes)


def test_only_the_direction_of_queries_and_keys_counts():
    x = jax.random.normal(jax.random.key(0), (1, 16, 8))
    params = draw(attention(), x)
    expected = apply(attention(), params, x)
    factors = jnp.repeat(jnp.array([5.0, 0.1, 1.0]), 8)  # of queries, keys and values
    params["params"]["qkv"]["kernel"] = params["params"]["qkv"]["kernel"] * factors
    params["params"]["q_bias"] = 5 * params["params"]["q_bias"]
    np.testing.assert_allclose(apply(attention(), params, x), expected, rtol=1e-4, atol=1e-5)


def test_the_factor_of_cosines_is_at_most_100():
    x = jax.random.normal(jax.random.key(0), (1, 16, 8))
    params = draw(attention(), x)

    def attended(log_factor):
        params["params"]["logit_scale"] = jnp.full((2, 1, 1), log_factor)
        return apply(attention(), params, x)

    at_limit = attended(np.log(100.0))
    np.testing.assert_allclose(attended(9.0), at_limit, rtol=1e-5, atol=1e-6)
    assert jnp.abs(attended(np.log(99.0)) - at_limit).max() > 1e-6


def test_a_key_of_zeros_is_attended_without_nan():
    x = jnp.zeros((1, 16, 8))
    params = draw(attention(), x)
    gradient = jax.jit(jax.grad(lambda x: attention().apply(params, x).sum()))(x)
    assert jnp.isfinite(gradient).all()


def test_distances_are_on_a_logarithmic_scale_in_units_of_the_pretraining():
    distances = swin_v2._log_distances((4, 4), (4, 4))
    assert distances.shape == (49, 2)
    np.testing.assert_array_equal(distances[0], -distances[-1])
    np.testing.assert_array_equal(distances[24], 0)
    # The farthest is 8 units: log2(1 + 8) / log2(8).
    np.testing.assert_allclose(distances[-1], np.log2(9) / 3, rtol=1e-6)
    np.testing.assert_allclose(distances[25], [0, np.log2(1 + 8 / 3) / 3], rtol=1e-6)
    larger = swin_v2._log_distances((7, 7), (4, 4))
    np.testing.assert_allclose(larger.reshape(13, 13, 2)[3:10, 3:10], distances.reshape(7, 7, 2))
    # A window of one token has only the distance 0.
    np.testing.assert_array_equal(swin_v2._log_distances((1, 2), (1, 2))[:, 0], 0)


def test_windows_of_the_pretraining_change_the_biases_of_their_stage():
    def logits(**options):
        return apply(tiny(**options), tiny_variables(), IMAGES)

    np.testing.assert_array_equal(logits(pretrained_window_sizes=(3, 0)), logits())
    assert jnp.abs(logits(pretrained_window_sizes=(2, 0)) - logits()).max() > 1e-4
    assert jnp.abs(logits(pretrained_window_sizes=(0, 4)) - logits()).max() > 1e-4


def test_tokens_attend_to_their_neighbours_only():
    """Which outputs of an attention change with which inputs."""
    module = attention(shift=(1, 1))
    x = jax.random.normal(jax.random.key(0), (1, 16, 8))
    params = draw(module, x)

    @jax.jit
    def reached(token):
        changed = module.apply(params, x.at[0, token].add(jnp.arange(8.0)))
        return jnp.abs(changed - module.apply(params, x))[0].max(axis=-1) > 1e-6

    neighbours = [set(np.flatnonzero(reached(token)).tolist()) for token in (0, 1, 5, 12)]
    assert neighbours == [{0}, {1, 2}, {5, 6, 9, 10}, {12}]


# The tap ------------------------------------------------------------------------------------------


def test_the_taps_see_whole_sequences():
    ((options,), tapped) = observing.taps(tiny(), tiny_variables(), IMAGES)
    assert options["prefix_tokens"] == 0
    points = ("block_input", "attention_input")
    grids = {1: (3, 20, 8), 2: (3, 20, 8), 3: (3, 6, 16)}
    assert tapped == [
        (None, "image", (3, 10, 8, 3)),
        *((layer, point, shape) for layer, shape in grids.items() for point in points),
    ]


@pytest.mark.parametrize("point", ["block_input", "attention_input"])
def test_where_the_noise_enters_a_block(point):
    """No norm precedes the attention; the residual bypasses the noise at its input."""
    here = point

    def taps(x, *, layer, point):
        return 3 * x if point == here else x

    x = jax.random.normal(jax.random.key(0), (1, 16, 8))
    block = layers.Block(
        layer=1,
        attention=lambda **common: attention(**common),
        mlp_dim=32,
        norm=layers.torch_layer_norm,
        post_norm=True,
    )
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, taps))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape)), shapes)
    params = variables["params"]

    def part(name, module, x):
        return apply(module, {"params": params[name]}, x)

    h = part("norm1", layers.torch_layer_norm(), part("attn", attention(), 3 * x))
    expected = (3 * x if point == "block_input" else x) + h
    mlp = layers.Mlp(hidden_dim=32)
    expected = expected + part("norm2", layers.torch_layer_norm(), part("mlp", mlp, expected))
    actual = jax.jit(functools.partial(block.apply, taps=taps))(variables, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_noise_at_the_attention_input_is_not_noise_at_the_block_input():
    shift = noise.LinearTransform(noise.CyclicShift(0.3))
    logits = [
        apply(
            tiny(injection=noise.Injection(shift, layer=1, point=point, inference=True)),
            tiny_variables(),
            IMAGES,
        )
        for point in ("block_input", "attention_input")
    ]
    plain = apply(tiny(), tiny_variables(), IMAGES)
    for a, b in ((logits[0], logits[1]), (logits[0], plain), (logits[1], plain)):
        assert jnp.abs(a - b).max() > 1e-3


@pytest.mark.flax_promotes
def test_bfloat16_attention_is_close_to_that_in_float32():
    """Although the logits are cosines times up to 100."""
    x = jax.random.normal(jax.random.key(0), (1, 16, 8))
    params = draw(attention(), x)
    exact = apply(attention(), params, x)
    rough = apply(attention(dtype=jnp.bfloat16), params, x)
    chex.assert_type(rough, jnp.bfloat16)
    assert jnp.abs(rough.astype(jnp.float32) - exact).max() < 0.05 * jnp.abs(exact).max()
