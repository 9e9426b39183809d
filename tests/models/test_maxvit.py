"""MaxViT: properties that its logits, compared in test_golden, do not name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from pnoise_jax import models
from pnoise_jax.models import maxvit
from pnoise_jax.models.parts import layers
from pnoise_jax.models.parts.windows import SpreadWindows, Windows
from tests.models import observing
from tests.models.drawing import draw_variables

TINY = {"dim": 8, "stem_dim": 8, "head_dim": 4, "stage_sizes": (1, 2), "image_size": (64, 96)}
IMAGES = jax.random.normal(jax.random.key(1), (2, 64, 96, 3))


def tiny(**options) -> models.MaxVit:
    return models.create_model("maxvit_t", **{**TINY, "num_classes": 5, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def test_parameter_names_and_shapes():
    def block(dim: int, before: int | None) -> dict[str, tuple[int, ...]]:
        hidden = 4 * dim
        expected = {
            "pre_norm/scale": (before or dim,),
            "pre_norm/bias": (before or dim,),
            "conv1_1x1/kernel": (1, 1, before or dim, hidden),
            "conv2_kxk/kernel": (3, 3, 1, hidden),
            "se/fc1/kernel": (1, 1, hidden, dim // 4),
            "se/fc1/bias": (dim // 4,),
            "se/fc2/kernel": (1, 1, dim // 4, hidden),
            "se/fc2/bias": (hidden,),
            "conv3_1x1/kernel": (1, 1, hidden, dim),
            "conv3_1x1/bias": (dim,),
        }
        for norm in ("norm1", "norm2"):
            expected |= {f"{norm}/scale": (hidden,), f"{norm}/bias": (hidden,)}
        if before not in (None, dim):
            expected["shortcut_expand/kernel"] = (1, 1, before, dim)
            expected["shortcut_expand/bias"] = (dim,)
        table = {"attn/relative_position_bias_table": (dim // 4, 3, 5)}
        return {f"conv/{name}": shape for name, shape in expected.items()} | {
            f"{part}/{name}": shape
            for part in ("attn_block", "attn_grid")
            for name, shape in (observing.block_shapes(dim) | table).items()
        }

    blocks = {"stage1_block1": (8, 8), "stage2_block1": (16, 8), "stage2_block2": (16, None)}
    expected = {
        "conv1/kernel": (3, 3, 3, 8),
        "conv1/bias": (8,),
        "bn1/scale": (8,),
        "bn1/bias": (8,),
        "conv2/kernel": (3, 3, 8, 8),
        "conv2/bias": (8,),
        **{f"{b}/{name}": s for b, sizes in blocks.items() for name, s in block(*sizes).items()},
        "fc_norm/scale": (16,),
        "fc_norm/bias": (16,),
        "pre_head/kernel": (16, 16),
        "pre_head/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }
    params = traverse_util.flatten_dict(tiny_variables()["params"], sep="/")
    assert {name: x.shape for name, x in params.items()} == expected


def test_a_block_is_a_layer_with_one_point_before_it_and_one_in_its_window_attention():
    """After the convolution block, which halves the map: a token of stage 1 is 4 x 4 pixels."""
    model = tiny()
    ((options,), tapped) = observing.taps(model, tiny_variables(), IMAGES)
    assert options["num_layers"] == model.num_layers == 3
    assert options["prefix_tokens"] == 0
    assert tapped == [
        (None, "image", IMAGES.shape),
        (1, "block_input", (2, 32, 48, 8)),
        (1, "attention_input", (2, 16, 24, 8)),
        (2, "block_input", (2, 16, 24, 8)),
        (2, "attention_input", (2, 8, 12, 16)),
        (3, "block_input", (2, 8, 12, 16)),
        (3, "attention_input", (2, 8, 12, 16)),
    ]


def test_a_block_attends_within_windows_and_then_across_a_grid():
    windows = []

    def observe(method, args, kwargs, context):
        is_attention = isinstance(context.module, maxvit.RelativeAttention)
        if is_attention and context.method_name == "__call__":
            windows.append((context.module.path[1], type(context.module.windows)))
        return method(*args, **kwargs)

    with nn.intercept_methods(observe):
        jax.eval_shape(tiny(stage_sizes=(1,)).init, jax.random.key(0), IMAGES)
    assert windows == [("attn_block", Windows), ("attn_grid", SpreadWindows)]


@pytest.mark.parametrize(("size", "window"), [(224, 7), (384, 12), (512, 16)])
@pytest.mark.parametrize("name", ["maxvit_t", "maxvit_xl"])
def test_windows_grow_with_the_image(name, size, window):
    model = models.create_model(name, image_size=size)
    assert {model.attention_grid(layer) for layer in range(1, model.num_layers + 1)} == {
        (window, window)
    }


COUNTS = {  # timm's, at 384 and 512 pixels
    "maxvit_t": (30_977_008, 31_049_584),
    "maxvit_s": (69_018_676, 69_127_540),
    "maxvit_b": (119_653_468, 119_876_380),
    "maxvit_l": (212_033_240, 212_330_456),
    "maxvit_xl": (475_323_472, 475_769_296),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_parameters_at_larger_sizes(name):
    for size, expected in zip((384, 512), COUNTS[name], strict=True):
        model = models.create_model(name, image_size=size)
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        assert sum(x.size for x in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image_size": 240},
            r"image_size=240: windows of 7 x 7 tokens \(image_size // 32\) do not divide the 60 x "
            r"60 tokens of stage 1: give multiples of 32, such as 224",
        ),
        ({"image_size": (224, 200)}, r"image_size=\(224, 200\): windows of 7 x 6 .*the 56 x 50 to"),
        ({"image_size": 16}, "image_size=16: windows of 0 x 0 tokens"),
        ({"image_size": (64, 64, 3)}, r"image_size=\(64, 64, 3\): give the images' side, or"),
        ({"image_size": 64.0}, r"image_size=64\.0: give the images' side"),
        ({"image_size": 0}, r"image_size=\(0, 0\): give whole numbers of at least 1"),
        ({"dim": 6}, "dim=6 is not divisible by head_dim=4"),
        ({"stem_dim": 0}, "stem_dim=0: give whole numbers"),
        ({"stage_sizes": ()}, r"stage_sizes=\(\)"),
        ({"depth": 3}, "this model has stages, and stage_sizes is the number of blocks in each"),
        ({"patch_size": 4}, "this model has no patches"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_images_of_another_size_raise():
    with pytest.raises(ValueError, match=r"\(2, 64, 64, 3\), expected \(batch, 64, 96, channels\)"):
        tiny().apply(tiny_variables(), IMAGES[:, :, :64])


def test_spread_windows_join_again_and_take_tokens_at_equal_distances():
    windows = SpreadWindows((4, 6), (2, 3))
    x = jnp.arange(2 * 24.0).reshape(2, 24, 1)
    cut = windows.cut(x)
    np.testing.assert_array_equal(windows.join(cut), x)
    rows, columns = np.divmod(np.asarray(cut[:4, :, 0], int), 6)
    for window in range(4):
        # All tokens of a window have the same row and column modulo the number of windows.
        assert {*zip(rows[window] % 2, columns[window] % 2, strict=True)} == {divmod(window, 2)}
    neighbours = Windows((4, 6), (2, 3)).cut(x)
    np.testing.assert_array_equal(neighbours[0, :, 0], [0, 1, 2, 6, 7, 8])


class Bias(maxvit.RelativeAttention, kw_only=True):
    """What is added to the logits."""

    @nn.compact
    def __call__(self, batch):
        return self.bias(batch)


def test_the_bias_is_of_the_key_minus_the_query():
    """In Swin it is of the query minus the key."""
    attention = Bias(windows=Windows((2, 3), (2, 3)), num_heads=2)
    table = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    params = {"params": {"relative_position_bias_table": table}}
    bias = attention.apply(params, 1)
    for query in range(6):
        for key in range(6):
            (y, x), (other_y, other_x) = divmod(query, 3), divmod(key, 3)
            expected = table[:, other_y - y + 1, other_x - x + 2]
            np.testing.assert_array_equal(bias[0, :, query, key], expected)


def test_five_branches_of_a_block_have_the_same_drop_path_rate():
    rates = {}

    def observe(method, args, kwargs, context):
        if isinstance(context.module, layers.DropPath):
            rates.setdefault(context.module.path[0], []).append(context.module.rate)
        return method(*args, **kwargs)

    with nn.intercept_methods(observe):
        jax.eval_shape(tiny(drop_path=0.4).init, jax.random.key(0), IMAGES)
    assert rates == {
        "stage1_block1": [pytest.approx(0.0)] * 5,
        "stage2_block1": [pytest.approx(0.2)] * 5,
        "stage2_block2": [pytest.approx(0.4)] * 5,
    }


def test_initial_values_are_timms():
    model = tiny(dim=32, head_dim=8, stem_dim=32, stage_sizes=(1,), image_size=96)
    images = jnp.zeros((1, 96, 96, 3))
    # What is not returned is not computed.
    init = jax.jit(lambda: model.init(jax.random.key(0, impl="rbg"), images)["params"])
    params = traverse_util.flatten_dict(init(), sep="/")
    for name, x in params.items():
        leaf = name.rpartition("/")[2]
        if leaf == "bias":
            assert not x.any(), name
        elif leaf == "scale":
            assert (x == 1).all(), name
        elif leaf == "relative_position_bias_table":
            np.testing.assert_allclose(x.std(), 0.02, rtol=0.3, err_msg=name)
        elif x.ndim == 4:  # normal, by the number of outputs of a weight
            groups = x.shape[-1] if name.endswith("conv2_kxk/kernel") else 1
            fan_out = x.shape[0] * x.shape[1] * x.shape[-1] / groups
            np.testing.assert_allclose(x.std(), (2 / fan_out) ** 0.5, rtol=0.2, err_msg=name)
        elif "attn_" in name:  # uniform, by both fans
            bound = (6 / sum(x.shape)) ** 0.5
            assert 0.9 * bound < jnp.abs(x).max() <= bound, name
        else:
            bound = x.shape[0] ** -0.5
            assert 0.9 * bound < jnp.abs(x).max() <= bound, name
