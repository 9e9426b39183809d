import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models, noise
from tests.models.drawing import draw_variables

TINY = {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))


def tiny(**options) -> models.VisionTransformer:
    return models.create_model("deit_ti_16_distilled", **{**TINY, **options})


@pytest.fixture(scope="module")
def variables() -> dict:
    return draw_variables(tiny(), IMAGES)


@pytest.mark.parametrize("size", ["ti", "s", "b"])
def test_without_the_distillation_token_it_is_the_vit(size):
    assert models.create_model(f"deit_{size}_16") == models.create_model(f"vit_{size}_16")


def test_it_has_a_token_a_position_and_a_head_more_than_a_vit(variables):
    vit = draw_variables(tiny(distilled=False), IMAGES)["params"]
    params = variables["params"]
    assert params.keys() - vit.keys() == {"dist_token", "head_dist"}
    assert params["dist_token"].shape == params["cls_token"].shape == (1, 1, 16)
    assert params["pos_embed"].shape == (1, 2 + 4, 16)
    chex.assert_trees_all_equal_shapes(params["head_dist"], params["head"])


def test_initial_values_of_added_parameters_are_timms():
    model = tiny(dim=64, depth=1, num_classes=64)
    params = model.init(jax.random.key(0, impl="rbg"), IMAGES)["params"]
    for x in (params["dist_token"], params["pos_embed"], params["head_dist"]["kernel"]):
        np.testing.assert_allclose(x.std(), 0.02, rtol=0.3)
    assert not params["head_dist"]["bias"].any()


@pytest.mark.parametrize("train", [False, True])
def test_the_logits_are_the_mean_of_both_heads(variables, train):
    params = variables["params"]

    def logits(**heads):
        zero = {
            name: jax.tree.map(jnp.zeros_like, params[name])
            for name in ("head", "head_dist")
            if name not in heads
        }
        return tiny().apply({"params": params | zero}, IMAGES, train=train)

    both = tiny().apply(variables, IMAGES, train=train)
    separate = logits(head=True), logits(head_dist=True)
    chex.assert_trees_all_close(both, sum(separate), atol=1e-6)
    assert jnp.abs(separate[0] - separate[1]).max() > 0.1


def test_the_heads_read_the_first_two_tokens(variables):
    model = tiny(depth=1)
    _, state = model.apply(variables, IMAGES, capture_intermediates=True, mutable="intermediates")
    intermediates = state["intermediates"]
    (tokens,) = intermediates["norm"]["__call__"]
    for place, head in enumerate(("head", "head_dist")):
        head_params = variables["params"][head]
        expected = tokens[:, place] @ head_params["kernel"] + head_params["bias"]
        chex.assert_trees_all_close(intermediates[head]["__call__"][0], expected, atol=1e-5)


@pytest.mark.parametrize(("tokens", "untouched"), [("patch", 2), ("all", 0)])
def test_noise_on_the_patches_leaves_both_prefix_tokens_alone(variables, tokens, untouched):
    shift = noise.LinearTransform(noise.CyclicShift(0.3))
    injection = noise.Injection(shift, layer=2, inference=True, tokens=tokens)
    normed = []
    for each in (None, injection):
        _, state = tiny(injection=each).apply(
            variables, IMAGES, capture_intermediates=True, mutable="intermediates"
        )
        normed += state["intermediates"]["block_2"]["norm1"]["__call__"]
    changed = jnp.abs(normed[0] - normed[1]).max(axis=(0, 2)) > 1e-4
    assert changed.tolist() == [False] * untouched + [True] * (6 - untouched)


@pytest.mark.parametrize("options", [{"pooling": "mean"}, {"class_token": False}])
def test_it_needs_both_tokens(options):
    with pytest.raises(ValueError, match=r"distilled=True has one head on .*pooling=\"token\""):
        tiny(**{"pooling": "mean", **options})
