import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models, noise, weights
from pnoise_jax.models import convit
from tests.models import observing, test_golden
from tests.models.drawing import draw_variables
from tests.weights import sources

TINY = {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))
SHIFT = noise.LinearTransform(noise.CyclicShift(0.3))


def tiny(**options) -> models.ConViT:
    return models.create_model("convit_ti", **{**TINY, "local_layers": 1, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def test_parameter_names_and_shapes():
    gated = {
        "qk/kernel": (16, 32),
        "v/kernel": (16, 16),
        "pos_proj/kernel": (3, 2),
        "pos_proj/bias": (2,),
        "gating_param": (2,),
    }
    plain = {"qkv/kernel": (16, 48)}
    expected = {
        "patch_embed/kernel": (4, 4, 3, 16),
        "patch_embed/bias": (16,),
        "cls_token": (1, 1, 16),
        "pos_embed": (1, 4, 16),
        **{f"block_1/{name}": shape for name, shape in observing.block_shapes(16, gated).items()},
        **{f"block_2/{name}": shape for name, shape in observing.block_shapes(16, plain).items()},
        "norm/scale": (16,),
        "norm/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }
    params = traverse_util.flatten_dict(tiny_variables()["params"], sep="/")
    assert {name: x.shape for name, x in params.items()} == expected


def test_initial_values_are_timms():
    model = tiny(dim=64, mlp_dim=128, num_classes=64, num_heads=4)
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), IMAGES)["params"]
    positions = params["block_1"]["attn"].pop("pos_proj")
    assert not positions["bias"].any()
    for name, x in traverse_util.flatten_dict(params, sep="/").items():
        if name == "patch_embed/kernel":  # uniform within ±1/sqrt(fan_in)
            bound = (4 * 4 * 3) ** -0.5
            assert 0.95 * bound < jnp.abs(x).max() <= bound
        elif name.endswith("bias"):
            assert not x.any(), name
        elif name.endswith(("scale", "gating_param")):
            assert (x == 1).all(), name
        elif name.endswith("attn/v/kernel"):
            np.testing.assert_array_equal(x, np.eye(64))
        else:
            np.testing.assert_allclose(x.std(), 0.02, rtol=0.3, err_msg=name)


def test_heads_begin_by_looking_at_one_neighbour_each():
    """Four look at the corners of the token; nine at the token itself and its neighbours."""
    kernel = functools.partial(convit._neighbours, jax.random.key(0), dtype=jnp.float32)
    right, down, distance = kernel(shape=(3, 4), strength=1.0)
    np.testing.assert_array_equal(right, [-1, -1, 1, 1])
    np.testing.assert_array_equal(down, [-1, 1, -1, 1])
    np.testing.assert_array_equal(distance, [-1] * 4)

    scores = convit._offsets((5, 4)) @ kernel(shape=(3, 10), strength=2.0)
    looked_at = np.asarray(scores[9].argmax(axis=0))  # from the token of row 2 and column 1
    np.testing.assert_array_equal(looked_at[:9], [4, 8, 12, 5, 9, 13, 6, 10, 14])
    assert jnp.abs(kernel(shape=(3, 10), strength=2.0)[:, 9]).max() < 0.2  # the tenth: at no one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 10}, "image_size=10 is not divisible by patch_size=4"),
        ({"num_heads": 3}, "dim=16 is not divisible by num_heads=3"),
        ({"local_layers": 2}, "local_layers=2 with depth=2: give a whole number from 0 to 1"),
        ({"local_layers": -1}, "local_layers=-1"),
    ],
)
def test_contradicting_options_raise_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_images_of_another_shape_raise():
    with pytest.raises(ValueError, match=r"\(3, 8, 12, 3\), expected \(batch, 8, 8, channels\)"):
        tiny().apply(tiny_variables(), jnp.zeros((3, 8, 12, 3)))


def test_without_local_layers_all_attention_is_plain():
    model = tiny(local_layers=0, image_size=(8, 12))
    images = jnp.zeros((2, 8, 12, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    paths = traverse_util.flatten_dict(variables["params"], sep="/")
    assert not any("gating" in path for path in paths)
    chex.assert_shape(jax.eval_shape(model.apply, variables, images), (2, 5))


# The tap ------------------------------------------------------------------------------------------


def test_the_taps_know_which_blocks_have_a_class_token(monkeypatch):
    tapped = []

    def inject(self, x, active, layer, prefix_tokens):
        tapped.append((layer, x.shape, prefix_tokens))
        return x

    monkeypatch.setattr(noise.Taps, "_inject", inject)
    injection = noise.Injection(SHIFT, layer=(1, 2), inference=True)
    model = tiny(injection=injection)
    jax.eval_shape(model.apply, tiny_variables(), IMAGES)
    assert tapped == [(1, (3, 4, 16), 0), (2, (3, 5, 16), 1)]


# Weights ------------------------------------------------------------------------------------------


def golden_model(image_size: int) -> models.ConViT:
    _, options = test_golden.MODELS["convit"]
    return models.create_model("convit_ti", num_classes=7, **options | {"image_size": image_size})


def test_weights_at_another_resolution(tmp_path):
    """The class token has no position, in the file as in the model."""
    file = sources.save_timm(tmp_path / "file", "convit")
    model = golden_model(48)
    matched = weights.match(file, model, sources.shapes(model))
    assert matched.describe().endswith(
        "timm's ConViT; head kept (7 classes); position embedding 4×4 → 6×6"
    )
    golden = sources.arrays(sources.GOLDEN / "convit_resized.npz")
    logits = jax.jit(model.apply)(sources.read(file, model), golden["images"])
    expected = golden["logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_another_model_is_named(tmp_path):
    file = sources.save_timm(tmp_path / "file", "convit")
    said = r"like convit_ti with patch_size=8, dim=36, depth=3, mlp_dim=72, local_layers=2"
    with pytest.raises(ValueError, match=said):
        weights.match(file, tiny(num_classes=7), sources.shapes(tiny(num_classes=7)))
