import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models, weights
from pnoise_jax.models import swin
from pnoise_jax.models.parts.windows import Windows
from tests.models import observing
from tests.models.drawing import draw_variables
from tests.weights import sources

# Grids of 5 x 4 and 3 x 2 tokens.
TINY = {"patch_size": 2, "image_size": (10, 8), "dim": 8, "head_dim": 4, "stage_sizes": (2, 1)}
TINY |= {"window_size": 3, "num_classes": 5}
IMAGES = jax.random.normal(jax.random.key(1), (3, 10, 8, 3))
GOLDEN = {"dim": 8, "head_dim": 4, "patch_size": 2, "stage_sizes": (2, 2, 1), "num_classes": 7}


def tiny(**options) -> models.SwinTransformer:
    return models.create_model("swin_t", **{**TINY, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def test_parameter_names_and_shapes():
    def block(dim: int, positions: int) -> dict[str, tuple[int, ...]]:
        table = {"attn/relative_position_bias_table": (positions, dim // 4)}
        return observing.block_shapes(dim) | table

    expected = {
        "patch_embed/kernel": (2, 2, 3, 8),
        "patch_embed/bias": (8,),
        "patch_norm/scale": (8,),
        "patch_norm/bias": (8,),
        **{f"stage1_block1/{name}": shape for name, shape in block(8, 5 * 5).items()},
        **{f"stage1_block2/{name}": shape for name, shape in block(8, 5 * 5).items()},
        "merge_2/norm/scale": (32,),
        "merge_2/norm/bias": (32,),
        "merge_2/reduction/kernel": (32, 16),
        **{f"stage2_block1/{name}": shape for name, shape in block(16, 5 * 3).items()},
        "norm/scale": (16,),
        "norm/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }
    params = traverse_util.flatten_dict(tiny_variables()["params"], sep="/")
    assert {name: x.shape for name, x in params.items()} == expected


def test_initial_values_are_timms():
    model = tiny(dim=32, head_dim=4, stage_sizes=(1, 1))
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), IMAGES)["params"]
    for name, x in traverse_util.flatten_dict(params, sep="/").items():
        if name == "patch_embed/kernel":  # uniform within ±1/sqrt(fan_in)
            bound = (2 * 2 * 3) ** -0.5
            assert 0.95 * bound < jnp.abs(x).max() <= bound
        elif name.endswith("bias"):
            assert not x.any(), name
        elif name.endswith("scale"):
            assert (x == 1).all(), name
        else:
            np.testing.assert_allclose(x.std(), 0.02, rtol=0.3, err_msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (10, 9)}, r"image_size=\(10, 9\) is not divisible by patch_size=2"),
        ({"image_size": 0}, r"image_size=\(0, 0\): give whole numbers"),
        ({"head_dim": 3}, "dim=8 is not divisible by head_dim=3"),
    ],
)
def test_contradicting_options_raise_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_images_of_another_shape_raise():
    with pytest.raises(ValueError, match=r"\(3, 8, 10, 3\), expected \(batch, 10, 8, channels\)"):
        tiny().apply(tiny_variables(), jnp.zeros((3, 8, 10, 3)))


# Windows ------------------------------------------------------------------------------------------


def test_layers_are_counted_over_all_stages_and_no_window_is_larger_than_the_grid():
    model = models.create_model("swin_t", stage_sizes=(2, 1, 3), image_size=(64, 40), window_size=7)
    layers = range(1, model.num_layers + 1)
    assert [model.layer_name(layer) for layer in layers] == [
        *("stage1_block1", "stage1_block2", "stage2_block1"),
        *("stage3_block1", "stage3_block2", "stage3_block3"),
    ]
    # Of grids of 16 x 10, 8 x 5 and 4 x 3 tokens.
    assert [model.attention_grid(layer) for layer in layers] == [(7, 7)] * 2 + [(7, 5)] + [
        (4, 3)
    ] * 3


@pytest.mark.parametrize("shift", [(0, 0), (1, 2)])
def test_cut_windows_join_again(shift):
    windows = Windows((5, 6), (2, 4), shift)
    x = jax.random.normal(jax.random.key(0), (2, 30, 3))
    cut = windows.cut(x)
    chex.assert_shape(cut, (2 * 3 * 2, 8, 3))
    chex.assert_trees_all_equal(windows.join(cut), x)


def test_a_shift_cuts_windows_elsewhere():
    x = jnp.arange(16.0).reshape(1, 16, 1)
    plain, shifted = (Windows((4, 4), (2, 2), shift).cut(x)[..., 0] for shift in ((0, 0), (1, 1)))
    np.testing.assert_array_equal(plain[0], [0, 1, 4, 5])
    np.testing.assert_array_equal(shifted[0], [5, 6, 9, 10])
    np.testing.assert_array_equal(shifted[3], [15, 12, 3, 0])  # the four corners


def test_tokens_attend_to_their_neighbours_only():
    """Which outputs of an attention change with which inputs."""
    windows = Windows((4, 4), (2, 2), (1, 1))
    attention = swin.ShiftedWindowAttention(windows=windows, num_heads=2)
    x = jax.random.normal(jax.random.key(0), (1, 16, 8))
    shapes = jax.eval_shape(lambda: attention.init(jax.random.key(0), x))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape)), shapes)

    @jax.jit
    def reached(token):
        changed = attention.apply(params, x.at[0, token].add(jnp.arange(8.0)))
        return jnp.abs(changed - attention.apply(params, x))[0].max(axis=-1) > 1e-6

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


# Weights ------------------------------------------------------------------------------------------


def golden_model(image_size: int | tuple[int, int], window_size: int) -> models.SwinTransformer:
    return models.create_model("swin_t", image_size=image_size, window_size=window_size, **GOLDEN)


def test_weights_with_buffers_and_in_the_authors_layout(tmp_path):
    """The authors merge at the end of a stage, and their head has another name."""
    model = golden_model(32, 4)
    expected = sources.read(sources.save_timm(tmp_path / "timm", "swin"), model)
    state = {
        "layers.0.blocks.0.attn.relative_position_index": np.zeros((16, 16), int),
        "layers.0.blocks.1.attn_mask": np.zeros((16, 16, 16), np.float32),
    }
    for name, x in sources.timm_state("swin").items():
        for stage in (1, 2):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        state[name.replace("head.fc", "head")] = x
    sources.save_file({k: np.ascontiguousarray(x) for k, x in state.items()}, tmp_path / "authors")
    chex.assert_trees_all_equal(sources.read(tmp_path / "authors", model), expected)


def test_tables_for_other_windows(tmp_path):
    """The last stage has 6 x 5 tokens."""
    file = sources.save_timm(tmp_path / "file", "swin")
    model = golden_model((48, 40), 6)
    matched = weights.match(file, model, sources.shapes(model))
    assert matched.describe().endswith(
        "timm's Swin; head kept (7 classes); "
        "relative positions 4×4 → 6×6; relative positions 4×4 → 6×5"
    )
    golden = sources.arrays(sources.GOLDEN / "swin_resized.npz")
    logits = jax.jit(model.apply)(sources.read(file, model), golden["images"])
    expected = golden["logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_another_model_is_named(tmp_path):
    file = sources.save_timm(tmp_path / "file", "swin")
    model = models.create_model("resnet18", num_classes=7)
    said = (
        r"like swin_b with patch_size=2, dim=8, stage_sizes=\(2, 2, 1\), head_dim=4, window_size=4:"
    )
    with pytest.raises(ValueError, match=said):
        weights.match(file, model, sources.shapes(model, 32, 32, 3))
