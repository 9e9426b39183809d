"""Files of DaViT: what its arrays do not show, and the variant of Florence-2."""

import json

import numpy as np
import pytest

from pnoise_jax import models, weights
from tests.models import test_golden as timm
from tests.weights import sources


def create(**options):
    base, defaults = timm.MODELS["davit"]
    return models.create_model(base, num_classes=7, **defaults | options)


@pytest.fixture
def file(tmp_path):
    return sources.save_timm(tmp_path / "model.safetensors", "davit")


def match(file, model):
    return weights.match(file, model, sources.shapes(model, 32, 32, 3))


def describe(file, **said):
    (file.parent / "config.json").write_text(json.dumps(said))


SIZES = {"embed_dims": [8, 16], "depths": [1, 2], "num_heads": [2, 4], "window_size": 3}


def test_what_no_array_shows_is_assumed_or_confirmed(file):
    assert match(file, create()).assumed == (
        "pooling='mean'",
        "activation='gelu' (exact)",
        "epsilon=1e-05 of norms",
        "head_dim=4",
        "window_size=3",
        "channel attention that weights queries, as published",
    )
    describe(file, architecture="davit_tiny", global_pool="avg", model_args=SIZES)
    matched = match(file, create())
    assert matched.assumed == ()
    assert "davit_tiny" in matched.describe()
    assert "config.json" not in matched.describe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (SIZES | {"window_size": 7}, "window_size=7, the model 3: set model.window_size=7"),
        ({k: SIZES[k] for k in ("embed_dims", "depths", "num_heads")}, "window_size=7, the mod"),
        (SIZES | {"num_heads": [1, 2]}, "head_dim=8.*, the model 4: set model.head_dim=8"),
        (SIZES | {"num_heads": [2, 2]}, r"head_dim=\[4, 8\], the model 4"),
        (SIZES | {"num_heads": "two"}, "head_dim=.*the model 4"),
        (SIZES | {"channel_attn_v2": True}, "is of timm's davit_tiny, which has channel_attn_v2"),
        (SIZES | {"cpe_act": True}, "has cpe_act=True"),
        (SIZES | {"attn_types": ["channel", "spatial"]}, r"has attn_types=\['channel', 'spatial'"),
        (SIZES | {"norm_layer_cl": "rmsnorm"}, "has norm_layer_cl='rmsnorm'"),
    ],
)
def test_another_function_with_the_same_arrays_is_refused(file, arguments, message):
    describe(file, architecture="davit_tiny", model_args=arguments)
    with pytest.raises(ValueError, match=message):
        match(file, create())


def test_florences_variant_is_refused_by_its_description(file):
    describe(file, architecture="davit_base_fl.msft_florence2")
    with pytest.raises(ValueError, match=r"davit_base_fl.*queries that attend to keys between ch"):
        match(file, create())


@pytest.mark.parametrize(
    "name",
    [
        "stages.0.blocks.0.channel_block.attn.qkv.weight",  # timm's
        "vision_tower.blocks.0.0.spatial_block.window_attn.fn.qkv.weight",  # its authors'
    ],
)
def test_florences_variant_is_refused_by_its_names(tmp_path, name):
    sources.save_file({name: np.ones((24, 8), "f4")}, tmp_path / "file")
    with pytest.raises(ValueError, match="belong to a DaViT of Florence-2, which is not among the"):
        match(tmp_path / "file", create())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dim": 12}, r"looks like davit_b with dim=8, stage_sizes=\(2, 4\): set config.model"),
        ({"stage_sizes": (4, 4)}, r"looks like davit_b with dim=8, stage_sizes=\(2, 4\): set c"),
        ({"stage_sizes": (2, 4, 2)}, "missing: params/merge_3/conv/bias"),
    ],
)
def test_a_model_of_another_depth_or_width_is_refused(file, options, said):
    with pytest.raises(ValueError, match=said):
        match(file, create(**options))


def test_a_davit_is_named_where_another_family_is_asked_for(file):
    with pytest.raises(ValueError, match="It looks like davit_b with dim=8, stage_sizes="):
        match(file, sources.resnet())
    name = "stages.1.blocks.1.1.cpe2.proj.weight"
    without = sources.save_timm(file.parent / "without", "davit", **{name: None})
    with pytest.raises(ValueError, match="1 missing: params/stage2_block4/cpe2/proj/kernel"):
        match(without, create())


def test_a_file_of_a_model_with_an_image_head_starts_a_classifier(tmp_path):
    """It has nothing after the last block; a file with only some of that is damaged."""
    parts = ("head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias")
    file = sources.save_timm(tmp_path / "blocks", "davit", **dict.fromkeys(parts))
    model = create()
    matched = weights.match(file, model, sources.shapes(model, 32, 32, 3), head="fresh")
    said = "head fresh (none in the file → 7 classes, with fc_norm, which the file also lacks)"
    assert said in matched.describe()
    assert not [name for name in dict(matched.read()) if "fc_norm" in name]
    file = sources.save_timm(tmp_path / "damaged", "davit", **dict.fromkeys(parts[1:]))
    with pytest.raises(ValueError, match="1 missing: params/fc_norm/bias"):
        weights.match(file, model, sources.shapes(model, 32, 32, 3), head="fresh")
