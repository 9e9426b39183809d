"""Files of DeiT III, of ViTs with registers and of CLIP's image encoders."""

import json

import jax
import numpy as np
import pytest

from pnoise_jax import models, weights
from pnoise_jax.weights.stated_options import model_called
from tests.models import test_golden as timm
from tests.weights import sources

NAMES = ("vit_registers", "vit_all_tokens", "vit_pre_norm")


def create(name, num_classes=7, **options):
    base, defaults = timm.MODELS[name]
    return models.create_model(base, num_classes=num_classes, **defaults | options)


def save(tmp_path, name, **changed):
    return sources.save_timm(tmp_path / "model.safetensors", name, **changed)


def match(file, model, **options):
    return weights.match(file, model, sources.shapes(model), **options)


def describe(file, **said):
    (file.parent / "config.json").write_text(json.dumps(said))


@pytest.mark.parametrize("name", NAMES)
def test_export_inverts_import(name, tmp_path):
    arrays = dict(match(save(tmp_path, name), create(name)).read())
    state = weights.timm_state(arrays)
    expected = sources.timm_state(name)
    assert state.keys() == expected.keys()
    for key, x in state.items():
        np.testing.assert_array_equal(x, expected[key], err_msg=key)


@pytest.mark.parametrize("name", ["vit_registers", "vit_all_tokens"])
def test_logits_at_another_resolution(name, tmp_path):
    """Only the positions of patches are resized; 4 x 3 patches are not a square."""
    golden = sources.arrays(sources.GOLDEN / f"{name}_resized.npz")
    model = create(name, image_size=(48, 40))
    file = save(tmp_path, name)
    describe(file, model_args={"img_size": [32, 24] if name == "vit_registers" else 32})
    variables = sources.read(file, model)
    logits = jax.jit(model.apply)(variables, golden["images"])
    expected = golden["logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_registers_without_positions_for_a_model_that_has_them(tmp_path):
    """They get zeros, like DeiT III's class token: the same function."""
    state = sources.timm_state("vit_all_tokens")
    file = save(tmp_path, "vit_all_tokens", pos_embed=state["pos_embed"][:, 4:])
    matched = match(file, create("vit_all_tokens"))
    assert "the learned tokens have no positions in the file: set to zero" in matched.describe()
    positions = dict(matched.read())["params/pos_embed"]
    np.testing.assert_array_equal(positions[:, :4], 0)
    np.testing.assert_array_equal(positions[:, 4:], state["pos_embed"][:, 4:])


def test_registers_with_positions_for_a_model_without_them_do_not_fit(tmp_path):
    """Dropping the positions would change the function."""
    file = save(tmp_path, "vit_all_tokens")
    with pytest.raises(ValueError, match="20 positions, which is not a square grid"):
        match(file, create("vit_all_tokens", prefix_positions=False))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_registers", r"vit_[a-z]+_16_reg4 with .*, register_tokens=2.*: set config\.model"),
        ("vit_all_tokens", r"deit3_[a-z]_16 with .*register_tokens=3.*prefix_positions=True"),
        ("vit_pre_norm", r"vit_b_16_clip with patch_size=8, dim=24, .*qkv_bias=False"),
    ],
)
def test_a_model_is_named_where_another_is_asked_for(name, said, tmp_path):
    with pytest.raises(ValueError, match=f"It looks like {said}"):
        match(save(tmp_path, name), sources.vit())


def test_the_norm_after_the_mean_is_detected(tmp_path):
    """timm says "avg" for both; the norms' names differ."""
    file = save(tmp_path, "vit_registers")
    describe(file, architecture="vit_medium_patch16_reg1_gap_256", global_pool="avg")
    matched = match(file, create("vit_registers"))
    assert matched.assumed == ("activation='gelu' (exact)", "epsilon=1e-06 of norms", "num_heads=2")
    with pytest.raises(ValueError, match="2 missing: params/norm/bias"):
        match(file, create("vit_registers", pooling="mean"))
    describe(file, global_pool="token")
    with pytest.raises(ValueError, match="pooling='token', the model 'mean_then_norm'"):
        match(file, create("vit_registers"))


def test_clips_norms_have_another_epsilon(tmp_path):
    file = save(tmp_path, "vit_pre_norm")
    assert "epsilon=1e-05 of norms" in match(file, create("vit_pre_norm")).assumed
    describe(file, model_args={"norm_eps": 1e-5, "pre_norm": True})
    matched = match(file, create("vit_pre_norm"))
    assert "epsilon" not in matched.describe() + "".join(matched.assumed)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("vit_base_patch16_clip_quickgelu_224", "has a GELU by a sigmoid"),
        ("vit_base_patch16_rpn_224.sw_in1k", "has its norms behind attention and MLP"),
    ],
)
def test_another_function_with_the_same_arrays_is_refused(architecture, message, tmp_path):
    file = save(tmp_path, "vit_pre_norm")
    describe(file, architecture=architecture)
    with pytest.raises(ValueError, match=message):
        match(file, create("vit_pre_norm"))


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("vit_little_patch16_reg1_gap_256.sbb_in12k_ft_in1k", "vit_little_16_reg4"),
        ("vit_betwixt_patch16_reg4_gap_384", "vit_betwixt_16_reg4"),
        ("vit_so150m2_patch16_reg1_gap_448", "vit_so150m2_16_reg1"),
        ("vit_large_patch14_clip_336.openai_ft_in12k_in1k", "vit_l_14_clip"),
        ("deit3_large_patch16_384.fb_in1k", "deit3_l_16"),
    ],
)
def test_a_model_is_known_by_timms_name(architecture, name):
    """Whatever its images and the number of its registers."""
    assert model_called(architecture) == models.create_model(name)
