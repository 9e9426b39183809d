"""Files of MaxViT: windows of another size, and variants of timm's that are refused."""

import json

import jax
import numpy as np
import pytest

from pnoise_jax import models, weights
from tests.models import test_golden as timm
from tests.weights import sources

BLOCK = "stages.0.blocks.0.attn_block"
TABLE = f"{BLOCK}.attn.rel_pos.relative_position_bias_table"


def create(**options):
    base, defaults = timm.MODELS["maxvit"]
    return models.create_model(base, num_classes=7, **defaults | options)


@pytest.fixture
def file(tmp_path):
    return sources.save_timm(tmp_path / "model.safetensors", "maxvit")


def match(file, model):
    return weights.match(file, model, sources.shapes(model))


def describe(file, **said):
    (file.parent / "config.json").write_text(json.dumps(said))


def test_tables_for_other_windows(file):
    model = create(image_size=(96, 64))
    golden = sources.arrays(sources.GOLDEN / "maxvit_resized.npz")
    logits = jax.jit(model.apply)(sources.read(file, model), golden["images"])
    expected = golden["logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    said = match(file, model).describe()
    assert said.endswith("timm's MaxViT; head kept (7 classes); relative positions 2×3 → 3×2")


def test_a_table_without_a_grid_is_not_resized(file):
    table = np.ones((2, 4, 5), np.float32)
    other = sources.save_timm(file.parent / "other", "maxvit", **{TABLE: table})
    with pytest.raises(ValueError, match=r"1 of another shape: .*rel_pos.*\(2, 4, 5\), where"):
        match(other, create())


def test_what_no_array_shows_is_assumed_or_confirmed(file):
    assert match(file, create()).assumed == (
        "pooling='mean'",
        "activation='gelu_tanh'",
        "epsilon=0.001 of norms",
        "padding as in TensorFlow, heads behind queries, keys and values",
    )
    sizes = {"embed_dim": [8, 16], "depths": [2, 1], "stem_width": 8, "block_type": ["M", "M"]}
    describe(file, architecture="maxvit_tiny_tf_224", global_pool="avg", model_args=sizes)
    matched = match(file, create())
    assert matched.assumed == ()
    assert "maxvit_tiny_tf_224" in matched.describe()
    assert "config.json" not in matched.describe()


@pytest.mark.parametrize(
    ("architecture", "arguments", "message"),
    [
        ("maxvit_tiny_rw_224.sw_in1k", {}, "maxvit_tiny_rw_224.*queries, keys and values side by"),
        ("maxvit_rmlp_base_rw_384", {}, "maxvit_rmlp_base_rw_384.*side by side"),
        ("maxvit_tiny_pm_256", {}, "maxvit_tiny_pm_256.*side by side"),
        ("maxvit_tiny_tf_224", {"transformer_head_first": True}, "transformer_head_first=True"),
        ("maxvit_tiny_tf_224", {"conv_padding": ""}, "has conv_padding=''"),
        ("maxvit_tiny_tf_224", {"conv_norm_eps": 1e-5}, "has conv_norm_eps=1e-05"),
        ("maxvit_tiny_tf_224", {"conv_act_layer": "silu"}, "has conv_act_layer='silu'"),
    ],
)
def test_another_function_with_the_same_arrays_is_refused(file, architecture, arguments, message):
    describe(file, architecture=architecture, model_args=arguments)
    with pytest.raises(ValueError, match=message):
        match(file, create())


def save_rw_variant(file):
    """As in timm's `_rw_` models, the norm precedes the pooling, and tables are flat."""
    changed = {"norm.weight": np.ones(16, "f4"), "norm.bias": np.ones(16, "f4")}
    absent = ("head.norm.weight", "head.norm.bias", "head.pre_logits.fc.weight")
    changed |= dict.fromkeys((*absent, "head.pre_logits.fc.bias"))
    for name in sources.timm_state("maxvit"):
        if name.endswith("relative_position_bias_table"):
            changed[name] = np.ones((15, 2), "f4")
        if name.endswith("conv3_1x1.bias"):
            changed[name] = None
    return sources.save_timm(file.parent / "rw.safetensors", "maxvit", **changed)


def test_timms_own_variant_is_refused_without_a_description(file):
    message = r"The file's model has a norm before the pooling, as timm's own MaxViTs \(_rw_\) have"
    with pytest.raises(ValueError, match=message):
        match(save_rw_variant(file), create())


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (f"{BLOCK}.attn.rel_pos.mlp.fc1.weight", "a MaxViT with a network for its positions"),
        ("stages.0.blocks.0.conv.conv_dw.weight", "a MaxxViT"),
        ("stages.0.blocks.0.conv2_kxk.weight", "a CoAtNet"),
    ],
)
def test_related_families_are_named(tmp_path, name, family):
    state = {name: np.ones((24, 8), "f4"), f"{BLOCK}.norm1.weight": np.ones(8, "f4")}
    sources.save_file(state, tmp_path / "file")
    with pytest.raises(ValueError, match=f"the weights of {family}.*not among the models here"):
        match(tmp_path / "file", create())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dim": 12}, "dim=8, stem_dim=8, stage_sizes=(2, 1), head_dim=4"),
        ({"stem_dim": 4}, "dim=8, stem_dim=8, stage_sizes=(2, 1), head_dim=4"),
        ({"stage_sizes": (2, 2)}, "dim=8, stem_dim=8, stage_sizes=(2, 1), head_dim=4"),
        ({"head_dim": 8}, "dim=8, stem_dim=8, stage_sizes=(2, 1), head_dim=4"),
    ],
)
def test_a_model_of_another_depth_or_width_is_refused(file, options, said):
    with pytest.raises(ValueError, match="does not fit") as error:
        match(file, create(**options))
    assert f"It looks like maxvit_b with {said}: set config.model to it" in str(error.value)
