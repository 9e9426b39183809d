"""Files of Swin V2: buffers, the authors' layout, and what no array shows."""

import json

import chex
import numpy as np
import pytest

from pnoise_jax import models, weights
from pnoise_jax.weights.stated_options import model_called
from tests.models import test_golden as timm
from tests.weights import sources


def create(name="swinv2", **options):
    base, defaults = timm.MODELS[name]
    return models.create_model(base, num_classes=7, **defaults | options)


@pytest.fixture
def file(tmp_path):
    return sources.save_timm(tmp_path / "model.safetensors", "swinv2")


def match(file, model):
    return weights.match(file, model, sources.shapes(model))


def describe(file, **said):
    (file.parent / "config.json").write_text(json.dumps(said))


SIZES = {"embed_dim": 8, "depths": [2, 2, 1], "num_heads": [2, 4, 8], "patch_size": 2}


def test_export_inverts_import(file):
    state = weights.timm_state(dict(match(file, create()).read()))
    expected = sources.timm_state("swinv2")
    assert state.keys() == expected.keys()
    for key, x in state.items():
        np.testing.assert_array_equal(x, expected[key], err_msg=key)


def test_buffers_and_the_authors_layout(file, tmp_path):
    """The authors merge at the end of a stage, and their head has another name."""
    attention = "layers.0.blocks.0.attn"
    state = {
        f"{attention}.relative_position_index": np.zeros((16, 16), int),
        f"{attention}.relative_coords_table": np.zeros((1, 7, 7, 2), np.float32),
        "layers.0.blocks.1.attn_mask": np.zeros((16, 16, 16), np.float32),
    }
    for name, x in sources.timm_state("swinv2").items():
        for stage in (1, 2):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        state[name.replace("head.fc", "head")] = x
    sources.save_file({k: np.ascontiguousarray(x) for k, x in state.items()}, tmp_path / "authors")
    expected = sources.read(file, create())
    chex.assert_trees_all_equal(sources.read(tmp_path / "authors", create()), expected)


def test_the_arrays_fit_windows_of_any_size(file):
    expected = dict(match(file, create()).read())
    matched = match(file, create(window_size=5, image_size=(48, 40)))
    assert "relative positions" not in matched.describe()
    chex.assert_trees_all_equal(dict(matched.read()), expected)


def test_what_no_array_shows_is_assumed_or_confirmed(file):
    assert match(file, create()).assumed == (
        "pooling='mean'",
        "activation='gelu' (exact)",
        "epsilon=1e-05 of norms",
        "window_size=4",
        "pretrained_window_sizes=()",
        "windows shifted by half their side",
    )
    said = {"architecture": "swinv2_tiny_window8_256", "global_pool": "avg"}
    describe(file, **said, model_args=SIZES | {"window_size": 4})
    assert match(file, create()).assumed == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "window_size=8, the model 4: set model.window_size=8"),
        ({"window_size": 7}, "window_size=7, the model 4"),
        (
            {"window_size": 4, "pretrained_window_sizes": [3, 3, 3]},
            r"pretrained_window_sizes=\(3, 3, 3\), the model \(\): set model.pretrained_window_si",
        ),
        ({"window_size": 4, "qkv_bias_separate": True}, "has qkv_bias_separate=True"),
        ({"window_size": 4, "always_partition": True}, "has always_partition=True"),
    ],
)
def test_another_function_with_the_same_arrays_is_refused(file, arguments, message):
    describe(file, architecture="swinv2_tiny_window8_256.ms_in1k", model_args=SIZES | arguments)
    with pytest.raises(ValueError, match=message):
        match(file, create())


def test_weights_can_be_used_in_larger_windows(file):
    """As published: distances are measured in the windows that the file was trained in."""
    describe(file, architecture="swinv2_tiny_window8_256", model_args=SIZES | {"window_size": 4})
    model = create(window_size=8, pretrained_window_sizes=(4, 4, 4), image_size=64)
    assert len(match(file, model).entries) == len(match(file, create()).entries)
    with pytest.raises(ValueError, match=r"window_size=4, the model 8: set model\.window_size=4"):
        match(file, create(window_size=8, image_size=64))


def test_another_model_is_named(file):
    said = r"like swinv2_[a-z_0-9]+ with patch_size=2, dim=8, stage_sizes=\(2, 2, 1\), head_dim=4"
    with pytest.raises(ValueError, match=said):
        match(file, sources.vit())


@pytest.mark.parametrize(("size", "windows"), [(256, "12to16_192to256"), (384, "12to24_192to384")])
def test_a_model_is_known_by_timms_name(size, windows):
    called = model_called(f"swinv2_base_window{windows}.ms_in22k_ft_in1k")
    assert called == models.create_model(f"swinv2_b_{size}")
