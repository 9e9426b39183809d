"""The decoder of every family of models: shapes, and where its pixels go."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models
from pnoise_jax.denoising import with_decoder
from pnoise_jax.denoising.decoder import arrange_patches


def decoded_shape(model, shape):
    """The shapes of what a model returns, and of its variables."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    decoded, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), images
    )
    return decoded, variables


def one_of_each_kind():
    """The first of all models of one class whose options differ only in numbers."""
    names = {}
    for name in models.list_models():
        options = models.default_options(name).items()
        texts = frozenset((k, v) for k, v in options if isinstance(v, bool | str | None))
        names.setdefault((type(models.create_model(name)), texts), name)
    return list(names.values())


@pytest.mark.long
@pytest.mark.parametrize("name", one_of_each_kind())
def test_a_model_of_each_kind_returns_images(name):
    options = models.default_options(name)
    size = options.get("image_size", 64)
    depth: dict = {"depth": 2} if "depth" in options else {}
    if "stage_sizes" in options:
        depth["stage_sizes"] = tuple(min(n, 2) for n in options["stage_sizes"])
    if "local_layers" in options:
        depth["local_layers"] = 1
    model = models.create_model(name, num_classes=7, **depth)
    decoder = with_decoder(model, width=8, depth=1)
    decoded, variables = decoded_shape(decoder, (2, size, size, 3))
    assert (decoded.shape, decoded.dtype) == ((2, size, size, 3), jnp.float32)

    # All blocks are there, so that they are trained and can be reused; only what pools tokens for
    # the head may be missing.
    plain = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    ours = jax.tree.map(jnp.shape, dict(variables["params"]))
    theirs = jax.tree.map(jnp.shape, dict(plain["params"]))
    assert ours.pop("decoder")
    missing = theirs.keys() - ours.keys()
    assert missing <= {"head", "head_dist", "fc_norm", "pre_head", "attn_pool"}
    assert ours == {name: shapes for name, shapes in theirs.items() if name not in missing}


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("resnet18", {"stem": "small"}, (1, 33, 50, 1)),
        ("resnet18", {}, (1, 97, 64, 3)),
        ("swin_t", {"image_size": (72, 104), "stage_sizes": (1, 1, 1, 1)}, (1, 72, 104, 3)),
        ("vit_ti_16", {"image_size": (32, 48), "depth": 1, "class_token": False,
                       "pooling": "mean"}, (1, 32, 48, 2)),
    ],
)  # fmt: skip
def test_sides_that_the_map_does_not_divide_are_cut(name, options, shape):
    model = with_decoder(models.create_model(name, **options), width=4, depth=0)
    assert decoded_shape(model, shape)[0].shape == shape


def test_each_patch_comes_to_its_place():
    images = np.arange(2 * 6 * 8 * 3).reshape(2, 6, 8, 3)
    patches = np.stack(
        [
            [images[:, 2 * r : 2 * r + 2, 4 * c : 4 * c + 4].reshape(2, -1) for c in range(2)]
            for r in range(3)
        ]
    )  # (3, 2, batch, 24)
    np.testing.assert_array_equal(arrange_patches(patches.transpose(2, 0, 1, 3), (2, 4)), images)


def test_a_map_is_the_normed_patch_tokens_row_after_row():
    options = {"image_size": (8, 12), "patch_size": 4, "dim": 8, "depth": 1, "num_heads": 2}
    model = models.create_model("vit_ti_16", num_classes=3, pooling="mean", **options)
    images = jax.random.normal(jax.random.key(1), (2, 8, 12, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    apply = jax.jit(functools.partial(model.apply, method="forward"), static_argnames="end")
    feature_map = apply(variables, images, end="map")
    features = apply(variables, images, end="features")
    assert feature_map.shape == (2, 2, 3, 8)
    np.testing.assert_allclose(feature_map.mean(axis=(1, 2)), features, atol=1e-6)


@pytest.mark.parametrize("options", [{"width": 0, "depth": 1}, {"width": 4, "depth": -1},
                                     {"width": 4.0, "depth": 1}])  # fmt: skip
def test_bad_sizes_are_named(options):
    with pytest.raises(ValueError, match=r"decoder_(width|depth)=.*: give a whole number"):
        with_decoder(models.create_model("resnet18"), **options)


def test_configs_do_not_set_the_image_head():
    assert "image_head" not in models.default_options("vit_ti_16")
