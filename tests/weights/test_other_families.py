"""Weights of unknown models: the message says so, and suggests no setting."""

import re

import numpy as np
import pytest

from pnoise_jax import models, weights
from pnoise_jax.models import registry
from pnoise_jax.weights.names import other_families
from tests.models import test_golden as timm
from tests.weights import sources


def error(tmp_path, arrays, model=None):
    sources.save_file(
        {name: np.ones(shape, "f4") for name, shape in arrays.items()}, tmp_path / "f"
    )
    model = sources.vit() if model is None else model
    with pytest.raises(ValueError, match="weights=") as raised:
        weights.match(tmp_path / "f", model, sources.shapes(model, 32, 32, 3))
    return str(raised.value)


def convnext(*, block="stages.{}.blocks.{}", dwconv="conv_dw", fc1="mlp.fc1", **top):
    arrays = {"stem.0.weight": (8, 3, 4, 4), "head.fc.weight": (7, 16)}
    for stage, number in ((0, 0), (0, 1), (1, 0)):
        name = block.format(stage, number)
        arrays |= {f"{name}.{dwconv}.weight": (8, 1, 7, 7), f"{name}.{fc1}.weight": (32, 8)}
        arrays |= {f"{name}.norm.weight": (8,), f"{name}.mlp.fc2.bias": (8,)}
    return arrays | top


@pytest.mark.parametrize(
    ("arrays", "family"),
    [
        (convnext(), "a ConvNeXt"),
        (convnext(block="stages.{}.{}", dwconv="dwconv", fc1="pwconv1"), "a ConvNeXt"),
        (
            convnext(block="convnext.encoder.stages.{}.layers.{}", dwconv="dwconv"),
            "a ConvNeXt",
        ),
        (convnext(block="features.{}.{}", dwconv="block.0", fc1="block.3"), "a ConvNeXt"),
        (convnext() | {"stages.1.blocks.0.xca.qkv.weight": (24, 8)}, "an EdgeNeXt"),
        ({"blocks.0.0.ghost1.primary_conv.0.weight": (1,)}, "a GhostNet"),
        ({"blocks.0.0.conv_pw.weight": (8, 8, 1, 1)}, "an EfficientNet or MobileNet"),
        ({"features.0.weight": (1,), "pre_logits.fc1.weight": (1,)}, "a VGG"),
        ({"s1.b1.conv1.conv.weight": (1,)}, "a RegNet"),
        ({"stages.0.blocks.0.norm3.weight": (1,)}, "a ResNet V2 (pre-activation)"),
        (
            {"stages.0.blocks.0.attn.logit_scale": (2,)},
            "another variant of Swin Transformer V2 (cr)",
        ),
        ({"blocks.0.mlp_tokens.fc1.weight": (3, 4)}, "an MLP-Mixer"),
    ],
)
def test_another_family_is_named(tmp_path, arrays, family):
    text = error(tmp_path, arrays)
    assert f"which belong to {family}, which is not among the models here: give wei" in text
    assert "save it without" not in text
    assert "config.model" not in text


@pytest.mark.parametrize(
    ("arrays", "family"),
    [
        ({"blocks.0.local_mp.conv1.weight": (36, 1, 3, 3)}, "an XCiT"),
        ({"blocks_token_only.0.norm1.weight": (36,)}, "a CaiT"),
        ({"blocks.0.mlp.fc1_g.weight": (72, 36)}, "an EVA-02"),
    ],
)
def test_another_family_with_blocks_like_ours(tmp_path, arrays, family):
    state = {name: x.shape for name, x in sources.timm_state("vit_token").items()}
    text = error(tmp_path, state | arrays, sources.vit(class_token=False, pooling="mean"))
    expected = f"model:\n  These are the weights of {family}, which is not among the models here:"
    assert expected in text
    assert " set " not in text
    assert "looks like" not in text


def test_scales_beside_a_beits_tables_do_not_hide_another_family():
    """An EVA has no such tables, so the scales alone do not make it one."""
    beit = ["blocks.0.attn.relative_position_bias_table", "blocks.0.gamma_1"]
    assert other_families.recognise(beit) == ""
    assert other_families.recognise(["blocks.0.gamma_1"]).startswith("an EVA or a ViT with rotary")
    gated = other_families.recognise([*beit, "blocks.0.mlp.fc1_g.weight"])
    assert gated.startswith("an EVA-02")


@pytest.mark.parametrize("name", ["deit3_s_16", "vit_ti_16"])
def test_a_vit_with_rotary_positions_is_not_called_a_deit3(tmp_path, name):
    """No array shows them: all are those of a DeiT III, but for the names of the scales."""
    state = {k: x.shape for k, x in sources.timm_state("vit_all_tokens").items()}
    model = models.create_model(name, num_classes=7, **timm.MODELS["vit_all_tokens"][1])
    renamed = {re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", k): x for k, x in state.items()}
    text = error(tmp_path, renamed, model)
    assert "belong to an EVA or a ViT with rotary positions, which is not among the models" in text


def test_blocks_without_a_stem_are_not_a_wrapped_model(tmp_path):
    """As in PVT, a pyramid of ViT-like stages, whose arrays do not identify the family."""
    blocks = {f"stages.0.blocks.{n}.attn.proj.weight": (8, 8) for n in range(3)}
    text = error(tmp_path, blocks | {"patch_embed.proj.weight": (8, 3, 4, 4)})
    assert "in no naming scheme known here: give weights of timm's ViT" in text


def test_the_description_says_what_the_names_do_not(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "poolformer_s12.sail_in1k"}')
    text = error(tmp_path, {"stages.0.blocks.0.mlp.fc1.weight": (8, 8)})
    assert "(stages.0.blocks.0.mlp.fc1.weight), described as poolformer_s12.sail_in1k, in" in text


@pytest.mark.parametrize("model", [sources.resnet(), sources.vit()])
def test_a_resnext_is_not_called_a_resnet(tmp_path, model):
    """Its groups make the second convolutions of all blocks narrower."""
    state = {k: x.shape for k, x in sources.timm_state("resnet_basic").items() if x.ndim}
    grouped = {
        name: (shape[0], shape[1] // 2, *shape[2:])
        for name, shape in state.items()
        if ".conv2.weight" in name
    }
    wider = {name: (2 * shape[0],) for name, shape in state.items() if ".bn2." in name}
    text = error(tmp_path, state | grouped | wider, model)
    assert "model:\n  No model here has these arrays; resnet18 is the closest, and " in text
    assert "class_token" not in text
    assert "looks like" not in text


def test_a_few_damaged_arrays_do_not_make_another_model(tmp_path):
    state = {k: x.shape for k, x in sources.timm_state("vit_token").items()}
    text = error(tmp_path, state | {"norm.bias": (35,)})
    assert text.endswith(
        "model:\n  1 of another shape: norm.bias (35,), where params/norm/bias is (36,)"
    )


def test_a_hybrid_is_recognised_by_its_stem(tmp_path):
    state = {k: x.shape for k, x in sources.timm_state("vit_token").items()}
    stem = {
        "patch_embed.backbone.conv.weight": (64, 3, 7, 7),
        "patch_embed.proj.weight": (36, 64, 1, 1),
    }
    text = error(tmp_path, state | stem)
    assert "has convolutions instead of the patch embedding (patch_embed.backbone.conv" in text
    assert "channel(s)" not in text


def test_parts_that_no_model_has(tmp_path):
    state = {k: x.shape for k, x in sources.timm_state("vit_token").items()}
    text = error(tmp_path, state | {"blocks.1.attn.rel_pos_h": (7, 12)})
    assert "has arrays such as blocks.1.attn.rel_pos_h in its blocks: no model here has th" in text


@pytest.mark.parametrize("name", timm.MODELS)
def test_no_model_of_ours_is_recognised_as_another_family(name):
    assert other_families.recognise(sources.timm_state(name)) == ""


def test_hints_work_beside_a_users_own_model(tmp_path):
    """Whose name begins like ours."""

    class Mine(models.VisionTransformer):
        pass

    Mine.__module__ = "somewhere_else"
    models.register_model("vit_mine")(Mine)
    try:
        file = sources.save_timm(tmp_path / "file", "vit_token")
        (tmp_path / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
        with pytest.raises(ValueError, match="It looks like vit_b_8 with dim=36"):
            weights.match(file, sources.vit(depth=2), sources.shapes(sources.vit(depth=2)))
        assert weights.timm_reference("vit_mine", Mine(), channels=3) is None
    finally:
        registry.MODELS._things.pop("vit_mine")


def test_advice_on_image_size_is_for_models_that_have_one():
    """A ResNet has no option `image_size`, and a user's own model may have none."""
    from pnoise_jax.weights.adapt import positions

    assert "set model.image_size" in positions._not_square("x", "7 rows", (4, 4), sources.vit())
    advice = positions._not_square("x", "7 rows", (4, 4), sources.resnet())
    assert advice.endswith("resized to the model's 4×4: use weights of a model with a square grid")
