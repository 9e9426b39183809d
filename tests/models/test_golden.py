"""Parity with timm: the same logits, and the same running statistics, for the same weights.

make_golden.py writes the files in golden/ and describes their contents.
"""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models
from pnoise_jax.weights.names.naming import find_naming

GOLDEN = Path(__file__).parent / "golden"

VIT = {"patch_size": 8, "image_size": 32}
TINY = VIT | {"dim": 24, "depth": 2, "num_heads": 2, "mlp_dim": 48}
VIT_SMALL = TINY | {"pooling": "mean"}
SWIN = {"dim": 8, "head_dim": 4, "window_size": 4}
SWIN_V2 = SWIN | {"patch_size": 2, "image_size": 32}
DAVIT = {"dim": 8, "head_dim": 4, "window_size": 3, "stage_sizes": (2, 4)}
MAXVIT = {"dim": 8, "stem_dim": 8, "head_dim": 4, "stage_sizes": (2, 1), "image_size": (64, 96)}
MODELS = {
    "vit_token": ("vit_ti_16", VIT | {"dim": 36, "depth": 3, "num_heads": 3, "mlp_dim": 72}),
    "vit_mean": ("vit_ti_16", VIT_SMALL | {"image_size": (32, 16)}),
    "vit_no_class_token": ("vit_ti_16", VIT_SMALL | {"class_token": False}),
    "vit_registers": (
        "vit_medium_16_reg4",
        TINY | {"register_tokens": 2, "image_size": (32, 24)},
    ),
    "vit_all_tokens": (  # a class token, registers and a position for each
        "deit3_s_16",
        TINY | {"register_tokens": 3, "prefix_positions": True},
    ),
    "vit_pre_norm": ("vit_b_16_clip", TINY | {"qkv_bias": False}),
    "deit_distilled": ("deit_ti_16_distilled", TINY),
    "beit": ("beit_b_16", TINY),
    "swin": ("swin_t", SWIN | {"image_size": 32, "patch_size": 2, "stage_sizes": (2, 2, 1)}),
    "swin_padded": ("swin_t", SWIN | {"image_size": (44, 24), "stage_sizes": (2, 2)}),
    "swinv2": ("swinv2_t", SWIN_V2 | {"stage_sizes": (2, 2, 1)}),
    "swinv2_padded": (  # and with weights pretrained in windows of other sizes
        "swinv2_t",
        SWIN | {"image_size": (44, 24), "stage_sizes": (2, 2), "pretrained_window_sizes": (3, 0)},
    ),
    "convit": (
        "convit_ti",
        TINY | {"dim": 36, "depth": 3, "num_heads": 4, "mlp_dim": 72, "local_layers": 2},
    ),
    "davit": ("davit_t", DAVIT),
    "maxvit": ("maxvit_t", MAXVIT),
    "parallel_vit": (
        "vit_parallel_s_14",
        TINY | {"patch_size": 7, "image_size": (28, 21)},
    ),
    "resnet_basic": ("resnet18", {"stage_sizes": (2, 1, 1), "width": 6}),
    "resnet_bottleneck": ("resnet50", {"stage_sizes": (1, 2), "width": 8}),
    "resnet_small_stem": ("resnet18", {"stage_sizes": (1, 1), "width": 8, "stem": "small"}),
}
WITH_BATCH_NORMS = [name for name in MODELS if name.startswith(("resnet", "maxvit"))]

Arrays = dict[str, np.ndarray]


def load(name: str) -> Arrays:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def below(golden: Arrays, prefix: str) -> Arrays:
    """The arrays under a prefix, by the rest of their name."""
    return {key.removeprefix(prefix): x for key, x in golden.items() if key.startswith(prefix)}


def flax_variables(state: Arrays) -> dict[str, dict]:
    """Our variables for a state dict of timm's."""
    shapes = {name: x.shape for name, x in state.items()}
    entries = find_naming(shapes).entries(shapes)
    variables = {path: entry.read(state.__getitem__) for path, entry in entries.items()}
    return traverse_util.unflatten_dict(variables, sep="/")


def create(name: str):
    base, options = MODELS[name]
    return models.create_model(base, num_classes=7, **options)


def assert_logits_equal(logits: jax.Array, expected: np.ndarray) -> None:
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_every_file_has_a_test():
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_mapping_uses_every_array_and_fills_every_variable(name):
    golden = load(name)
    state = below(golden, "state/")
    mapped = flax_variables(state)
    ours = jax.eval_shape(create(name).init, jax.random.key(0), golden["images"])
    shapes = jax.tree.map(lambda x: x.shape, ours)
    assert jax.tree.map(lambda x: x.shape, mapped) == shapes
    assert len(jax.tree.leaves(mapped)) == len(state)


@pytest.mark.parametrize("name", MODELS)
def test_logits(name):
    golden = load(name)
    variables = flax_variables(below(golden, "state/"))
    logits = jax.jit(create(name).apply)(variables, golden["images"])
    assert_logits_equal(logits, golden["logits"])


@pytest.mark.parametrize("name", WITH_BATCH_NORMS)
def test_a_training_forward_pass(name):
    golden = load(name)
    state = below(golden, "state/")
    variables = flax_variables(state)
    model = create(name)
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    logits, updated = apply(variables, golden["images"])
    assert_logits_equal(logits, golden["train_logits"])

    # PyTorch averages the unbiased variance, Flax the biased one: undo the factor n / (n - 1).
    expected = below(golden, "train_state/")
    for module, n in below(golden, "train_count/").items():
        key = f"{module}.running_var"
        kept = 0.9 * state[key]
        expected[key] = kept + (expected[key] - kept) * (n - 1) / n
    expected = traverse_util.flatten_dict(flax_variables(expected), sep="/")
    actual = traverse_util.flatten_dict(dict(updated), sep="/")
    assert actual.keys() == expected.keys()
    for path, x in actual.items():
        np.testing.assert_allclose(x, expected[path], rtol=2e-5, atol=1e-7, err_msg=path)
