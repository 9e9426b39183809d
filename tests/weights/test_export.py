"""Weights in timm's names: the inverse of the import, and timm's own state dicts."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models, weights
from tests.models import test_golden as timm
from tests.models.drawing import draw_variables


@pytest.mark.parametrize("name", timm.MODELS)
def test_export_inverts_import_exactly(name):
    """Every array of every family, by name and bit for bit."""
    state = timm.below(timm.load(name), "state/")
    variables = traverse_util.flatten_dict(timm.flax_variables(state), sep="/")
    exported = weights.timm_state(variables)
    counters = {key for key in exported if key.endswith("num_batches_tracked")}
    assert len(counters) == sum(key.endswith("running_mean") for key in state)
    assert exported.keys() - counters == state.keys()
    for key, x in state.items():
        np.testing.assert_array_equal(exported[key], x, strict=True, err_msg=key)
        assert exported[key].flags.c_contiguous


def test_arrays_of_no_known_family_are_refused():
    with pytest.raises(ValueError, match="these 1 arrays belong to none of the families that have"):
        weights.timm_state({"params/dense/kernel": np.ones((2, 2), "f4")})


MAP = {"num_heads": 48, "global_pool": "map", "class_token": False, "pre_norm": False}
SIDE_384 = {"img_size": [384, 384]}
MEAN = {"class_token": False, "global_pool": "avg", "fc_norm": False}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vit_b_16", {}, ("vit_base_patch16_224", {})),
        ("vit_b_16", {"image_size": 384}, ("vit_base_patch16_384", {})),
        (
            "vit_ti_16",
            {"image_size": 8, "patch_size": 4, "mlp_dim": 96, "pooling": "mean"},
            (
                "vit_tiny_patch16_224",
                {
                    "patch_size": 4,
                    "mlp_ratio": 0.5,
                    "global_pool": "avg",
                    "fc_norm": False,
                    "img_size": [8, 8],
                },
            ),
        ),
        ("deit_s_16_distilled", {}, ("deit_small_distilled_patch16_224", {})),
        ("swin_b_384", {}, ("swin_base_patch4_window12_384", {})),
        (
            "swin_t",
            {"image_size": 64, "window_size": 8, "dim": 64, "stage_sizes": (2, 2)},
            (
                "swin_tiny_patch4_window7_224",
                {"window_size": 8, "depths": [2, 2], "num_heads": [2, 4], "img_size": [64, 64]}
                | {"embed_dim": 64},
            ),
        ),
        ("beit_l_16", {"num_heads": 32}, ("beit_large_patch16_224", {"num_heads": 32})),
        ("vit_s_16", {"class_token": False, "pooling": "mean"}, ("vit_small_patch16_224", MEAN)),
        ("convit_ti", {"num_heads": 6}, ("convit_tiny", {"num_heads": 6, "embed_dim": 32})),
        ("convit_s", {"local_layers": 8}, ("convit_small", {"local_up_to_layer": 8})),
        ("convit_ti", {"image_size": (224, 240)}, None),
        ("maxvit_xl", {}, ("maxvit_xlarge_tf_224", {})),
        ("maxvit_b", {"image_size": (384, 384)}, ("maxvit_base_tf_384", {})),
        ("maxvit_t", {"image_size": 512}, ("maxvit_tiny_tf_512", {})),
        ("maxvit_t", {"image_size": 256}, ("maxvit_tiny_tf_224", {"img_size": [256, 256]})),
        (
            "maxvit_s",
            {"dim": 16, "head_dim": 8, "stem_dim": 4, "stage_sizes": (2, 1)},
            (
                "maxvit_small_tf_224",
                {"embed_dim": [16, 32], "depths": [2, 1], "block_type": ["M", "M"]}
                | {"stem_width": 4, "head_hidden_size": 32, "transformer_dim_head": 8},
            ),
        ),
        ("vit_h_14", {}, ("vit_huge_patch14_224", {})),
        ("vit_h_14", {"image_size": 384 - 6}, ("vit_huge_patch14_224", {"img_size": [378, 378]})),
        ("vit_b_32", {"image_size": 384}, ("vit_base_patch32_384", {})),
        ("vit_b_8", {"image_size": 384}, ("vit_base_patch8_224", {"img_size": [384, 384]})),
        (
            "vit_ti_16",
            {"register_tokens": 4, "prefix_positions": False, "layer_scale": 0.1},
            (
                "vit_tiny_patch16_224",
                {"reg_tokens": 4, "no_embed_class": True, "init_values": 0.1},
            ),
        ),
        (
            "vit_s_16",
            {"class_token": False, "pooling": "mean_then_norm", "qkv_bias": False},
            ("vit_small_patch16_224", MEAN | {"fc_norm": True, "qkv_bias": False}),
        ),
        ("vit_little_16_reg4", {}, ("vit_little_patch16_reg4_gap_256", {})),
        ("vit_little_16_reg4", {"depth": 2}, ("vit_little_patch16_reg4_gap_256", {"depth": 2})),
        (
            "vit_wee_16_reg1",
            {"image_size": 384, "mlp_dim": None, "layer_scale": 0.0},
            (
                "vit_wee_patch16_reg1_gap_256",
                {"img_size": [384, 384], "mlp_ratio": 4.0, "init_values": 0.0},
            ),
        ),
        (
            "vit_betwixt_16_reg4",
            {"class_token": True, "pooling": "token"},
            (
                "vit_betwixt_patch16_reg4_gap_256",
                {"class_token": True, "global_pool": "token", "fc_norm": False},
            ),
        ),
        ("vit_so150m2_16_reg1", {}, ("vit_so150m2_patch16_reg1_gap_256", {})),
        ("deit3_b_16", {"image_size": 384}, ("deit3_base_patch16_384", {})),
        ("deit3_m_16", {"image_size": 384}, ("deit3_medium_patch16_224", {"img_size": [384, 384]})),
        ("vit_l_14_clip", {}, ("vit_large_patch14_clip_224", {})),
        ("vit_b_16_clip", {"image_size": 384}, ("vit_base_patch16_clip_224", SIDE_384)),
        ("vit_b_16_clip", {"pre_norm": False}, None),
        ("vit_b_16", {"pre_norm": True}, None),
        ("swinv2_t", {}, ("swinv2_tiny_window8_256", {})),
        ("swinv2_s_window16", {}, ("swinv2_small_window16_256", {})),
        ("swinv2_l_384", {}, ("swinv2_large_window12to24_192to384", {})),
        (
            "swinv2_b_256",
            {"pretrained_window_sizes": ()},
            ("swinv2_base_window12to16_192to256", {"pretrained_window_sizes": [0, 0, 0, 0]}),
        ),
        (
            "swinv2_t",
            {"window_size": 4, "pretrained_window_sizes": (8, 4), "stage_sizes": (2, 2)},
            (
                "swinv2_tiny_window8_256",
                {"window_size": 4, "depths": [2, 2], "num_heads": [3, 6]}
                | {"pretrained_window_sizes": [8, 4]},
            ),
        ),
        ("vit_22b", {}, ("vit_huge_patch14_xp_224", MAP | {"embed_dim": 6144, "depth": 48})),
        (
            "vit_parallel_g_14",
            {"image_size": 32, "patch_size": 16, "num_heads": 44, "depth": 48},
            (
                "vit_huge_patch14_xp_224",
                MAP
                | {"embed_dim": 1408, "depth": 48, "patch_size": 16, "img_size": [32, 32]}
                | {"mlp_ratio": 6144 / 1408, "num_heads": 44},
            ),
        ),
        ("davit_g", {}, ("davit_giant", {})),
        ("davit_t", {"window_size": 12}, ("davit_tiny", {"window_size": 12})),
        (
            "davit_s",
            {"dim": 16, "head_dim": 8, "stage_sizes": (2, 4)},
            ("davit_small", {"embed_dims": [16, 32], "depths": [1, 2], "num_heads": [2, 4]}),
        ),
        ("resnet18", {"stage_sizes": (1, 1, 1, 1)}, ("resnet18", {"layers": [1, 1, 1, 1]})),
        ("resnet18", {"stem": "small"}, None),
    ],
)
def test_timms_name_and_arguments_for_a_model(name, options, expected):
    model = models.create_model(name, num_classes=10, **options)
    reference = weights.timm_reference(name, model, channels=3)
    if expected is not None:
        expected = (expected[0], {"num_classes": 10} | expected[1])
    assert reference == expected


def test_grey_images_become_in_chans():
    model = models.create_model("beit_b_16")
    _, arguments = weights.timm_reference("beit_b_16", model, channels=1)
    assert arguments == {"num_classes": 1000, "in_chans": 1}


def test_timm_rounds_mlp_ratio_to_the_same_mlp_dim():
    for dim in (44, 192, 432, 768):
        for mlp_dim in range(16, 4 * dim, 16):
            model = models.create_model("vit_s_16", dim=dim, num_heads=4, mlp_dim=mlp_dim)
            _, arguments = weights.timm_reference("vit_s_16", model, channels=3)
            assert int(dim * arguments["mlp_ratio"]) == mlp_dim


SMALL = {"image_size": 32, "patch_size": 8, "dim": 44, "depth": 2, "num_heads": 4, "mlp_dim": 60}
STAGES = {"image_size": 64, "dim": 16, "head_dim": 4, "window_size": 4, "stage_sizes": (2, 1)}

MAXVIT = {"image_size": 64, "dim": 16, "stem_dim": 8, "head_dim": 4, "stage_sizes": (2, 1)}
DAVIT = {"dim": 16, "head_dim": 4, "window_size": 4, "stage_sizes": (2, 2)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_ti_16", SMALL),
        ("vit_b_16", SMALL | {"image_size": (24, 40), "class_token": False, "pooling": "mean"}),
        ("deit_b_16_distilled", SMALL | {"image_size": 384, "patch_size": 64}),
        ("beit_b_16", SMALL),
        ("vit_s_16", SMALL | {"register_tokens": 3, "layer_scale": 0.1, "qkv_bias": False}),
        ("vit_little_16_reg4", SMALL),
        ("vit_so150m_16_reg4", SMALL | {"mlp_dim": None}),
        ("deit3_s_16", SMALL | {"register_tokens": 2, "pooling": "mean_then_norm"}),
        ("vit_b_32_clip", SMALL),
        ("swin_t", STAGES),
        ("swinv2_t", STAGES),
        ("swinv2_l_384", STAGES | {"pretrained_window_sizes": (3, 0)}),
        ("swin_b_384", STAGES),
        ("convit_ti", SMALL | {"local_layers": 1}),
        ("vit_parallel_g_14", SMALL),
        ("davit_t", DAVIT),
        ("maxvit_t", MAXVIT),
        ("resnet34", {"stage_sizes": (1, 1, 1, 1)}),
    ],
)
def test_timm_builds_the_same_function(name, options):
    """From the name and the arguments; where PyTorch and timm are installed."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("timm")
    model = models.create_model(name, num_classes=7, **options)
    images = np.random.default_rng(0).normal(size=(2, *(model.image_shape or (64, 64)), 3))
    images = images.astype(np.float32)
    variables = draw_variables(model, images)
    state = weights.timm_state(traverse_util.flatten_dict(variables, sep="/"))
    reference, arguments = weights.timm_reference(name, model, channels=3)
    built = theirs.create_model(reference, **arguments).eval()
    built.load_state_dict({k: torch.from_numpy(np.array(x)) for k, x in state.items()})
    with torch.inference_mode():
        expected = built(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    actual = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_timm_has_every_registered_model():
    """The same names and shapes, at their full size; where PyTorch and timm are installed."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("timm")
    for name in models.list_models():
        model = models.create_model(name)
        images = jax.ShapeDtypeStruct((1, *(model.image_shape or (64, 64)), 3), np.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        shapes = {
            path: leaf.shape
            for path, leaf in traverse_util.flatten_dict(variables, sep="/").items()
        }
        layout = weights.timm_layout(shapes)
        exported = {
            key: tuple(shapes[path][axis] for axis in axes) for path, (key, axes) in layout.items()
        }
        with torch.device("meta"):
            reference, arguments = weights.timm_reference(name, model, channels=3)
            state = theirs.create_model(reference, **arguments).state_dict()
        counted = {k: tuple(x.shape) for k, x in state.items() if "num_batches_tracked" not in k}
        assert exported == counted, name
