"""The last block computes only the tokens that the head reads; the logits are the same."""

import functools

import chex
import jax
import jax.numpy as jnp
import pytest

from pnoise_jax import models, noise
from pnoise_jax.studies import ahead_of_time
from tests.models import observing
from tests.models.drawing import draw_variables

IMAGES = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
TINY = {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
READ = {  # by model: the number of tokens that its head reads, and of all tokens
    "vit_ti_16": (1, 5),
    "deit_ti_16_distilled": (2, 6),
    "deit3_s_16": (1, 5),
    "vit_b_16_clip": (1, 5),
    "convit_ti": (1, 5),
}
NOISES = [
    None,
    noise.LinearTransform(noise.Optimal()),
    noise.Gaussian(std=0.3),
    noise.SaltAndPepper(probability=0.2, extremes="image"),
]


def create(name: str, **options) -> models.Classifier:
    local = {"local_layers": 1} if name.startswith("convit") else {}
    return models.create_model(name, **TINY | local | options)


def last_block(model, variables, **call):
    return observing.outputs(model, variables, IMAGES, **call)[f"block_{model.num_layers}"]


def assert_same_function(model, variables, **call) -> None:
    """Compares logits and all gradients with and without the tokens that nobody reads."""

    def loss(images, variables, all_tokens):
        logits = model.clone(all_tokens=all_tokens).apply(variables, images, **call)
        return jnp.sum(jnp.sin(logits)), logits

    differentiated = jax.grad(loss, argnums=(0, 1), has_aux=True)
    gradients = jax.jit(differentiated, static_argnums=2)
    fewer, whole = (gradients(IMAGES, variables, all_tokens) for all_tokens in (False, True))
    chex.assert_trees_all_close(fewer, whole, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", READ)
def test_only_what_the_head_reads_is_computed(name):
    model = create(name)
    variables = draw_variables(model, IMAGES)
    read, tokens = READ[name]
    assert last_block(model, variables).shape == (4, read, 16)
    assert last_block(model.clone(all_tokens=True), variables).shape == (4, tokens, 16)
    first = [
        observing.outputs(each, variables, IMAGES)["block_1"].shape
        for each in (model, model.clone(all_tokens=True))
    ]
    assert first[0] == first[1]


@pytest.mark.parametrize(
    ("name", "remat"), [*((name, False) for name in READ), ("vit_ti_16", True)]
)
def test_logits_and_gradients_are_the_same(name, remat):
    model = create(name, remat=remat, drop_path=0.5)
    call = {"train": True, "rngs": {"dropout": jax.random.key(3)}}
    assert_same_function(model, draw_variables(model, IMAGES), **call)


@pytest.mark.parametrize("point", ["block_input", "attention_input"])
@pytest.mark.parametrize("entering", NOISES, ids=str)
@pytest.mark.parametrize("name", ["vit_ti_16", "convit_ti"])
def test_noise_in_the_last_layer_is_the_same(name, entering, point):
    injection = entering and noise.Injection(entering, layer="last", point=point, tokens="patch")
    model = create(name, injection=injection)
    variables = draw_variables(model, IMAGES)
    call = {"train": True, "rngs": {"noise": jax.random.key(3)}}
    assert_same_function(model, variables, **call)
    if entering is not None:
        plain = model.clone(injection=None).apply(variables, IMAGES, **call)
        assert jnp.abs(model.apply(variables, IMAGES, **call) - plain).max() > 1e-4


@pytest.mark.parametrize("name", ["vit_ti_16", "convit_ti"])
def test_resuming_gives_the_same_and_a_map_has_all_tokens(name):
    model = create(name)
    variables = draw_variables(model, IMAGES)
    forward = functools.partial(model.apply, variables, method="forward")
    inputs = forward(IMAGES, end=2)
    assert inputs.shape == (4, 5, 16)
    logits = jax.jit(model.apply)(variables, IMAGES)
    chex.assert_trees_all_close(forward(inputs, start=2), logits, rtol=1e-5, atol=1e-5)
    assert forward(IMAGES, end="features").shape == (4, 16)
    whole = functools.partial(model.clone(all_tokens=True).apply, variables, method="forward")
    chex.assert_trees_all_equal(forward(IMAGES, end="map"), whole(IMAGES, end="map"))


class ReadsAll(models.VisionTransformer, kw_only=True):
    def run_features(self, x, *, train):
        return self.run_norm(x).mean(axis=1)


class OwnHead(models.VisionTransformer, kw_only=True):
    def run_head(self, x, *, train):
        return self.run_logits(self.run_norm(x)[:, -1], train=train)


class OwnNorm(models.VisionTransformer, kw_only=True):
    def run_norm(self, x):
        return x - x.mean(axis=1, keepdims=True)


class OwnBlocks(models.VisionTransformer, kw_only=True):
    def run_block(self, x, taps, *, layer, train):
        return 2 * super().run_block(x, taps, layer=layer, train=train)


@pytest.mark.parametrize("kind", [ReadsAll, OwnHead, OwnNorm, OwnBlocks])
def test_a_subclass_with_another_head_or_block_gets_all_tokens(kind):
    model = kind(**TINY)
    variables = draw_variables(model, IMAGES)
    assert last_block(model, variables).shape == (4, 5, 16)
    logits = [
        model.clone(all_tokens=all_tokens).apply(variables, IMAGES) for all_tokens in (False, True)
    ]
    chex.assert_trees_all_equal(*logits)


@pytest.mark.parametrize("pooling", ["mean", "mean_then_norm"])
def test_a_mean_reads_all_tokens(pooling):
    model = create("vit_ti_16", pooling=pooling)
    assert last_block(model, draw_variables(model, IMAGES)).shape == (4, 5, 16)


def test_twelve_blocks_take_eight_percent_less_work():
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    flops = []
    for all_tokens in (False, True):
        model = models.create_model("vit_b_16", all_tokens=all_tokens)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        flops.append(ahead_of_time.count_flops(model.apply, variables, images))
    assert 0.91 < flops[0] / flops[1] < 0.925
