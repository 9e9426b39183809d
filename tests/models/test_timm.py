"""Every registered model against timm's own, where PyTorch and timm are installed.

The models keep their widths, heads and options; depth, image and number of classes are smaller.
"""

import jax
import numpy as np
import pytest

from pnoise_jax import models
from tests.models import test_golden as golden

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
make_golden = pytest.importorskip("tests.models.make_golden")

TIMM = {
    "vit_ti_16": "vit_tiny_patch16_224",
    "vit_s_16": "vit_small_patch16_224",
    "vit_b_16": "vit_base_patch16_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_b_8": "vit_base_patch8_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
    "vit_wee_16_reg1": "vit_wee_patch16_reg1_gap_256",
    "vit_little_16_reg4": "vit_little_patch16_reg4_gap_256",
    "vit_medium_16_reg4": "vit_medium_patch16_reg4_gap_256",
    "vit_mediumd_16_reg4": "vit_mediumd_patch16_reg4_gap_256",
    "vit_betwixt_16_reg4": "vit_betwixt_patch16_reg4_gap_256",
    "vit_so150m_16_reg4": "vit_so150m_patch16_reg4_gap_256",
    "vit_so150m2_16_reg1": "vit_so150m2_patch16_reg1_gap_256",
    "vit_b_32_clip": "vit_base_patch32_clip_224",
    "vit_b_16_clip": "vit_base_patch16_clip_224",
    "vit_l_14_clip": "vit_large_patch14_clip_224",
    "vit_h_14_clip": "vit_huge_patch14_clip_224",
    "vit_22b": "vit_huge_patch14_xp_224",
    "vit_parallel_s_14": "vit_huge_patch14_xp_224",
    "vit_parallel_g_14": "vit_huge_patch14_xp_224",
    "deit_ti_16": "deit_tiny_patch16_224",
    "deit_s_16": "deit_small_patch16_224",
    "deit_b_16": "deit_base_patch16_224",
    "deit_ti_16_distilled": "deit_tiny_distilled_patch16_224",
    "deit_s_16_distilled": "deit_small_distilled_patch16_224",
    "deit_b_16_distilled": "deit_base_distilled_patch16_224",
    "deit3_s_16": "deit3_small_patch16_224",
    "deit3_m_16": "deit3_medium_patch16_224",
    "deit3_b_16": "deit3_base_patch16_224",
    "deit3_l_16": "deit3_large_patch16_224",
    "deit3_h_14": "deit3_huge_patch14_224",
    "beit_b_16": "beit_base_patch16_224",
    "beit_l_16": "beit_large_patch16_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_l": "swin_large_patch4_window7_224",
    "swin_b_384": "swin_base_patch4_window12_384",
    "swin_l_384": "swin_large_patch4_window12_384",
    "swinv2_t": "swinv2_tiny_window8_256",
    "swinv2_t_window16": "swinv2_tiny_window16_256",
    "swinv2_s": "swinv2_small_window8_256",
    "swinv2_s_window16": "swinv2_small_window16_256",
    "swinv2_b": "swinv2_base_window8_256",
    "swinv2_b_window16": "swinv2_base_window16_256",
    "swinv2_b_256": "swinv2_base_window12to16_192to256",
    "swinv2_b_384": "swinv2_base_window12to24_192to384",
    "swinv2_l_256": "swinv2_large_window12to16_192to256",
    "swinv2_l_384": "swinv2_large_window12to24_192to384",
    "convit_ti": "convit_tiny",
    "convit_s": "convit_small",
    "convit_b": "convit_base",
    "davit_t": "davit_tiny",
    "davit_s": "davit_small",
    "davit_b": "davit_base",
    "davit_l": "davit_large",
    "davit_h": "davit_huge",
    "davit_g": "davit_giant",
    "maxvit_t": "maxvit_tiny_tf_224",
    "maxvit_s": "maxvit_small_tf_224",
    "maxvit_b": "maxvit_base_tf_224",
    "maxvit_l": "maxvit_large_tf_224",
    "maxvit_xl": "maxvit_xlarge_tf_224",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
}
_PARALLEL = {"global_pool": "map", "class_token": False, "pre_norm": False}
# What timm's name does not say.
ARGUMENTS = {
    "vit_22b": _PARALLEL | {"embed_dim": 6144, "depth": 48, "num_heads": 48},
    "vit_parallel_s_14": _PARALLEL | {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_parallel_g_14": _PARALLEL
    | {"embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11},
}
# Options for theirs and for ours, by the start of the name.
SMALLER = {
    "vit_22b": (  # narrower: its own blocks take gigabytes
        {"embed_dim": 256, "num_heads": 2, "depth": 2, "img_size": (42, 28)},
        {"dim": 256, "num_heads": 2, "depth": 2, "image_size": (42, 28)},
    ),
    "vit_parallel": (
        {"depth": 2, "img_size": (42, 28)},
        {"depth": 2, "image_size": (42, 28)},
    ),
    "vit_h_14": ({"depth": 2, "img_size": (42, 28)}, {"depth": 2, "image_size": (42, 28)}),
    "vit_l_14": ({"depth": 2, "img_size": (42, 28)}, {"depth": 2, "image_size": (42, 28)}),
    "deit3_h_14": ({"depth": 2, "img_size": (42, 28)}, {"depth": 2, "image_size": (42, 28)}),
    "vit_b_32": ({"depth": 2, "img_size": (64, 96)}, {"depth": 2, "image_size": (64, 96)}),
    "resnet": ({"layers": (1, 2, 1, 1)}, {"stage_sizes": (1, 2, 1, 1)}),
    "swin": (
        {"depths": (2, 1, 1, 1), "img_size": (64, 48)},
        {"stage_sizes": (2, 1, 1, 1), "image_size": (64, 48)},
    ),
    "davit": ({"depths": (1, 1, 1, 1)}, {"stage_sizes": (2, 2, 2, 2)}),
    "maxvit": (
        {"depths": (1, 2, 1, 1), "img_size": (64, 96)},
        {"stage_sizes": (1, 2, 1, 1), "image_size": (64, 96)},
    ),
    "convit": (  # timm's accepts only squares
        {"depth": 3, "local_up_to_layer": 2, "img_size": 48},
        {"depth": 3, "local_layers": 2, "image_size": (48, 48)},
    ),
    "": ({"depth": 2, "img_size": (64, 48)}, {"depth": 2, "image_size": (64, 48)}),
}


def test_every_model_has_its_counterpart():
    assert set(TIMM) == set(models.list_models())


# Seconds each; smaller models of these families run the same code.
WIDEST = ("davit_l", "davit_h", "davit_g", "maxvit_xl", "vit_parallel_g_14")


@pytest.mark.parametrize("name", TIMM)
def test_parameters(name):
    with torch.device("meta"):
        theirs = timm.create_model(TIMM[name], num_classes=1000, **ARGUMENTS.get(name, {}))
    model = models.create_model(name)
    images = jax.ShapeDtypeStruct((1, *(model.image_shape or (224, 224)), 3), np.float32)
    ours = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert sum(x.size for x in jax.tree.leaves(ours)) == sum(x.numel() for x in theirs.parameters())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in WIDEST else n for n in TIMM]
)
def test_logits(name):
    theirs, ours = next(pair for start, pair in SMALLER.items() if name.startswith(start))
    torch.manual_seed(0)
    arguments = ARGUMENTS.get(name, {}) | theirs
    reference = timm.create_model(TIMM[name], num_classes=7, **arguments).eval()
    make_golden.perturb(reference)
    images = torch.randn(2, 3, *ours.get("image_size", (64, 48)))
    with torch.no_grad():
        expected = reference(images).numpy()
    variables = golden.flax_variables(make_golden.arrays(reference.state_dict(), ""))
    model = models.create_model(name, num_classes=7, **ours)
    logits = jax.jit(model.apply)(variables, images.permute(0, 2, 3, 1).numpy())
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
