"""ViT-22B and its kin: properties that their logits, compared in test_golden, do not name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import traverse_util

from pnoise_jax import models, noise
from pnoise_jax.models import parallel_vit
from pnoise_jax.models.parts import layers
from tests.models import observing
from tests.models.drawing import draw_variables

TINY = {"image_size": (28, 42), "dim": 8, "depth": 2, "num_heads": 2, "num_classes": 5}
IMAGES = jax.random.normal(jax.random.key(1), (3, 28, 42, 3))


def tiny(**options) -> models.ParallelViT:
    return models.create_model("vit_parallel_s_14", **{**TINY, **options})


@functools.cache
def tiny_variables() -> dict:
    return draw_variables(tiny(), IMAGES)


def test_parameter_names_and_shapes():
    block = {
        "in_norm/scale": (8,),
        "in_proj/kernel": (8, 32 + 3 * 8),  # without a bias
        "mlp_bias": (32,),
        "attn/q_norm/scale": (4,),
        "attn/k_norm/scale": (4,),
        "attn/proj/kernel": (8, 8),
        "attn/proj/bias": (8,),
        "mlp_out_proj/kernel": (32, 8),
        "mlp_out_proj/bias": (8,),
    }
    pool = {"latent": (1, 1, 8), "norm/scale": (8,)}
    dense = {"q": (8, 8), "kv": (8, 16), "proj": (8, 8), "mlp/fc1": (8, 32), "mlp/fc2": (32, 8)}
    for name, shape in dense.items():
        pool |= {f"{name}/kernel": shape, f"{name}/bias": shape[1:]}
    expected = {
        "patch_embed/kernel": (14, 14, 3, 8),
        "patch_embed/bias": (8,),
        "pos_embed": (1, 6, 8),
        **{f"block_{n}/{name}": shape for n in (1, 2) for name, shape in block.items()},
        "norm/scale": (8,),
        **{f"attn_pool/{name}": shape for name, shape in pool.items()},
        "head/kernel": (8, 5),
        "head/bias": (5,),
    }
    params = traverse_util.flatten_dict(tiny_variables()["params"], sep="/")
    assert {name: x.shape for name, x in params.items()} == expected


def test_vit_22b_has_the_published_size():
    """The matrices of its blocks have 21 743 million entries: 48 times 12 * 6144²."""
    model = models.create_model("vit_22b")
    assert (model.grid, model.mlp_features, model.dim // model.num_heads) == ((16, 16), 24576, 128)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    sizes = {k: x.size for k, x in traverse_util.flatten_dict(shapes, sep="/").items()}
    in_blocks = {k: size for k, size in sizes.items() if k.startswith("block_")}
    matrices = sum(size for k, size in in_blocks.items() if k.endswith("/kernel"))
    assert matrices == 48 * 12 * 6144**2 == 21_743_271_936
    # Two biases of outputs and the MLP's; scales of the norm, and of queries and keys.
    assert sum(in_blocks.values()) - matrices == 48 * (2 * 6144 + 24576 + 6144 + 2 * 128)
    pooling = sum(size for k, size in sizes.items() if k.startswith("attn_pool/"))
    assert pooling == 12 * 6144**2 + 24576 + 7 * 6144  # 453 million


def test_attention_and_mlp_read_one_norm_and_are_added():
    block = parallel_vit.ParallelBlock(
        layer=1,
        attention=functools.partial(
            parallel_vit.ProjectedAttention, num_heads=2, qk_norm=parallel_vit._norm
        ),
        mlp_dim=32,
    )
    params = tiny_variables()["params"]["block_1"]
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)

    def norm(x, scale):
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * scale

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    h = norm(x.astype(float), p["in_norm"]["scale"]) @ p["in_proj"]["kernel"]
    hidden, query, key, value = np.split(h, [32, 40, 48], axis=-1)
    query, key, value = (part.reshape(2, 5, 2, 4) for part in (query, key, value))
    query, key = norm(query, p["attn"]["q_norm"]["scale"]), norm(key, p["attn"]["k_norm"]["scale"])
    weights = np.exp(np.einsum("bthd,bshd->bhts", query, key) / 2)
    weights /= weights.sum(-1, keepdims=True)
    attended = np.einsum("bhts,bshd->bthd", weights, value).reshape(2, 5, 8)
    hidden = np.asarray(nn.gelu(jnp.asarray(hidden + p["mlp_bias"], "float32"), approximate=False))
    expected = x + dense(attended, p["attn"]["proj"]) + dense(hidden, p["mlp_out_proj"])
    taps = noise.Taps((), num_layers=1, prefix_tokens=0)
    actual = jax.jit(lambda v, x: block.apply(v, x, taps))({"params": params}, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_taps():
    ((options,), tapped) = observing.taps(tiny(), tiny_variables(), IMAGES)
    assert (options["num_layers"], options["prefix_tokens"]) == (2, 0)
    points = ("block_input", "attention_input")
    assert tapped == [
        (None, "image", IMAGES.shape),
        *((layer, point, (3, 6, 8)) for layer in (1, 2) for point in points),
    ]


def test_stochastic_depth_grows_evenly():
    rates = {}

    def observe(method, args, kwargs, context):
        if isinstance(context.module, layers.DropPath):
            rates[context.module.path] = context.module.rate
        return method(*args, **kwargs)

    with nn.intercept_methods(observe):
        jax.eval_shape(tiny(depth=3, drop_path=0.4).init, jax.random.key(0), IMAGES)
    assert rates == {(f"block_{n + 1}", "drop_path"): pytest.approx(0.2 * n) for n in range(3)}


@pytest.mark.flax_promotes  # Adam
def test_the_small_model_learns_with_noise():
    """The mean colour of images, in two classes; the last layer's input is mixed in training."""
    mixing = noise.LinearTransform(noise.CyclicShift(0.1))
    model = tiny(num_classes=2, image_size=28, injection=noise.Injection(mixing))
    labels = jnp.arange(16) % 2
    images = jax.random.normal(jax.random.key(2), (16, 28, 28, 3)) * 0.1
    images = images + jnp.where(labels == 1, 1.0, -1.0)[:, None, None, None]
    variables = draw_variables(model, images)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(variables, state):
        def loss(variables):
            logits = model.apply(variables, images, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradients = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(variables, updates), state, value

    state, losses = optimizer.init(variables), []
    for _ in range(40):
        variables, state, value = step(variables, state)
        losses.append(float(value))
    assert losses[0] > 0.3
    assert losses[-1] < 0.1 * losses[0]
    predicted = jax.jit(model.apply)(variables, images).argmax(axis=1)
    np.testing.assert_array_equal(predicted, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 32}, "image_size=32 is not divisible by patch_size=14"),
        ({"num_heads": 3}, "dim=8 is not divisible by num_heads=3"),
        ({"depth": 0}, "depth=0"),
        ({"mlp_dim": 0}, "mlp_dim=0"),
        ({"pooling": "mean"}, "unknown option of vit_parallel_s_14 'pooling'"),
        ({"class_token": True}, "unknown option of vit_parallel_s_14 'class_token'"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)
