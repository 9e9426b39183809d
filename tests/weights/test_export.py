"""Weights in timm's names: the way back of what is imported, and timm's own state dicts."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models, weights
from tests.models import test_golden as timm


@pytest.mark.parametrize("name", timm.MODELS)
def test_the_way_back_is_exact(name):
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


def test_arrays_of_no_family():
    with pytest.raises(ValueError, match="these 1 arrays are of none of the families that have"):
        weights.timm_state({"params/dense/kernel": np.ones((2, 2), "f4")})


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
        ("convit_ti", {"num_heads": 6}, ("convit_tiny", {"num_heads": 6, "embed_dim": 32})),
        ("resnet18", {"stage_sizes": (1, 1, 1, 1)}, ("resnet18", {"layers": [1, 1, 1, 1]})),
        ("resnet18", {"stem": "small"}, None),
    ],
)
def test_what_timm_calls_it(name, options, expected):
    model = models.create_model(name, num_classes=10, **options)
    found = weights.timm_reference(name, model, channels=3)
    if expected is not None:
        expected = (expected[0], {"num_classes": 10} | expected[1])
    assert found == expected


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
