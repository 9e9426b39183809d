"""Files of ViTs with parallel blocks."""

import json

import numpy as np
import pytest

from pnoise_jax import models, weights
from tests.models import test_golden as timm
from tests.weights import sources


def create(**options):
    base, defaults = timm.MODELS["parallel_vit"]
    return models.create_model(base, num_classes=7, **defaults | options)


@pytest.fixture
def file(tmp_path):
    return sources.save_timm(tmp_path / "model.safetensors", "parallel_vit")


def match(file, model):
    return weights.match(file, model, sources.shapes(model))


def describe(file, **said):
    (file.parent / "config.json").write_text(json.dumps(said))


def test_what_no_array_shows_is_assumed_or_confirmed(file):
    matched = match(file, create())
    assert "timm's ViT with parallel blocks" in matched.describe()
    assert matched.assumed == ("activation='gelu' (exact)", "epsilon=1e-06 of norms")
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 7, "mlp_ratio": 2}
    sizes |= {"global_pool": "map", "class_token": False, "pre_norm": False}
    describe(file, architecture="vit_huge_patch14_xp_224", model_args=sizes)
    assert match(file, create()).assumed == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm_layer": "layernorm"}, "has norm_layer='layernorm'"),
        ({"act_layer": "gelu_tanh"}, "has act_layer='gelu_tanh'"),
        ({"global_pool": "avg"}, "has pooling='mean', the model 'map': use weights of another mod"),
    ],
)
def test_another_function_with_the_same_arrays_is_refused(file, arguments, message):
    describe(file, model_args=arguments)
    with pytest.raises(ValueError, match=message):
        match(file, create())


@pytest.mark.parametrize("options", [{"dim": 48}, {"depth": 3}, {"num_heads": 4}, {"mlp_dim": 96}])
def test_a_model_of_another_depth_or_width_is_refused(file, options):
    with pytest.raises(ValueError, match="does not fit") as error:
        match(file, create(**options))
    changed = r"patch_size=7, dim=24, depth=2, mlp_dim=48, num_heads=2: set config.model to it"
    assert changed in str(error.value)
    assert "It looks like vit_" in str(error.value)


def test_plain_and_parallel_vits_are_told_apart(tmp_path, file):
    with pytest.raises(
        ValueError, match=r"It looks like vit_(22b|parallel_._14) with patch_size=7"
    ):
        match(file, sources.vit())
    plain = sources.save_timm(tmp_path / "plain", "vit_token")
    with pytest.raises(ValueError, match="It looks like vit_b_8 with dim=36, depth=3, mlp_dim=72"):
        match(plain, create())


def test_a_norm_before_the_blocks_is_refused(tmp_path):
    """timm's own models of this kind have one."""
    norm = {"norm_pre.weight": np.ones(24, np.float32)}
    other = sources.save_timm(tmp_path / "other", "parallel_vit", **norm)
    with pytest.raises(
        ValueError, match=r"a norm before its blocks \(norm_pre.weight\): no model h"
    ):
        match(other, create())


def test_positions_are_resized(file):
    model = create(image_size=(42, 28))
    with pytest.raises(ValueError, match="12 positions, which is not a square grid"):
        match(file, model)
    describe(file, architecture="vit_huge_patch14_xp_224", model_args={"img_size": [28, 21]})
    assert "position embedding 4×3 → 6×4" in match(file, model).describe()
