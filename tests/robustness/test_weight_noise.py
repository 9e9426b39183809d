"""Noise on weights: what it draws, where, and what it refuses; averages over draws."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models
from pnoise_jax.robustness import AveragedModel, WeightNoise
from pnoise_jax.training import RandomStreams

KEY = jax.random.key(0)
PARAMS = {
    "first": {"kernel": jnp.ones((300, 100)), "bias": jnp.zeros(100)},
    "second": {"kernel": jnp.ones((300, 100))},
    "count": jnp.zeros((), jnp.int32),
}


def test_noise_is_gaussian_and_only_where_a_pattern_matches():
    noisy = WeightNoise(0.5, ("first/.*",)).perturb(KEY, PARAMS)
    change = np.asarray(noisy["first"]["kernel"] - 1)
    assert change.std() == pytest.approx(0.5, rel=0.02)
    assert change.mean() == pytest.approx(0, abs=0.01)
    assert (np.abs(change) < 0.5).mean() == pytest.approx(0.6827, abs=0.01)
    assert noisy["first"]["bias"].any()
    assert noisy["second"]["kernel"] is PARAMS["second"]["kernel"]
    assert noisy["count"] is PARAMS["count"]


def test_a_parameter_s_noise_does_not_depend_on_the_others():
    only_second = WeightNoise(0.5, ("second/kernel",)).perturb(KEY, PARAMS)
    all_kernels = WeightNoise(0.5).perturb(KEY, PARAMS)
    for both in (only_second, all_kernels):
        assert both["count"] is PARAMS["count"]
    np.testing.assert_array_equal(only_second["second"]["kernel"], all_kernels["second"]["kernel"])
    assert not np.array_equal(all_kernels["first"]["kernel"], all_kernels["second"]["kernel"])


def test_strength_scales_noise_and_zero_is_bitwise_nothing():
    twice = WeightNoise(0.5).perturb(KEY, PARAMS, strength=jnp.float32(2))
    once = WeightNoise(1.0).perturb(KEY, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, twice, once)
    nothing = WeightNoise(0.5).perturb(KEY, PARAMS, strength=jnp.float32(0))
    jax.tree.map(np.testing.assert_array_equal, nothing, PARAMS)


@pytest.mark.parametrize(
    ("on", "frozen", "message"),
    [
        (
            (".*/kernal",),
            None,
            r"weights: '\.\*/kernal' matches none of the 4 parameters, which include",
        ),
        (("first",), None, r"matches none .*first/.*a pattern must match a whole path"),
        ((".*",), None, r"weights=.* matches count, whose dtype is int32: only floating-point"),
        (
            (".*/kernel",),
            "second/kernel",
            r"matches second/kernel, which optimizer\.freeze freezes",
        ),
    ],
)
def test_what_cannot_have_noise_is_named(on, frozen, message):
    still = jax.tree.map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/") == frozen, PARAMS
    )
    with pytest.raises(ValueError, match=message):
        WeightNoise(0.1, on).require_fitting(PARAMS, frozen and still, field="weights")
    WeightNoise(0.1, ("first/kernel",)).require_fitting(PARAMS, frozen and still, field="weights")


@pytest.mark.parametrize(
    ("std", "on", "message"),
    [
        (-0.1, (".*",), r"std=-0\.1: give a finite number of at least 0"),
        (float("nan"), (".*",), "std=nan"),
        (True, (".*",), "std=True"),
        (0.1, (), r"on=\(\): name the parameters"),
        (0.1, "head/kernel", r"on='head/kernel': give a tuple"),
        (0.1, ("(",), r"'\(' is not a valid regular expression"),
        (0.1, (3,), "3 is not a valid regular expression"),
    ],
)
def test_bad_settings_are_named(std, on, message):
    with pytest.raises(ValueError, match=message):
        WeightNoise(std, on)


def test_an_averaged_model_has_the_mean_probabilities():
    model = models.create_model(
        "vit_ti_16", num_classes=10, image_size=8, patch_size=4, dim=8, depth=1, num_heads=2
    )
    images = jax.random.normal(KEY, (3, 8, 8, 1))
    variables = jax.jit(model.init)(KEY, images)
    weight_noise = WeightNoise(0.3)
    got = AveragedModel(model, weight_noise, draws=3, seed=5).apply(variables, images, train=False)
    key = RandomStreams(jax.random.key(5))["weight_noise"]
    probabilities = []
    for number in range(3):
        params = weight_noise.perturb(jax.random.fold_in(key, number), variables["params"])
        probabilities.append(np.exp(jax.nn.log_softmax(model.apply({"params": params}, images))))
    assert np.std(probabilities, axis=0).max() > 0.01
    np.testing.assert_allclose(np.exp(got), np.mean(probabilities, axis=0), rtol=2e-5)


def test_classes_that_do_not_count_decide_nothing():
    """If a third class took all the probability of one draw, the other would decide."""

    class Fixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            kernel = self.param("kernel", nn.initializers.zeros, (3,))
            return jnp.where(kernel[0] > 0, jnp.array([0.0, 3, 10]), jnp.array([1.0, 0, -10]))[None]

    weight_noise = WeightNoise(1.0, (".*",))
    variables = {"params": {"kernel": jnp.zeros(3)}}
    seed = next(
        seed
        for seed in range(20)
        if len({float(draw(seed, number) > 0) for number in range(2)}) == 2
    )
    logits = AveragedModel(Fixed(), weight_noise, 2, seed, (0, 1)).apply(variables, jnp.ones(1))
    each = [jax.nn.softmax(jnp.array(pair)) for pair in ([0.0, 3.0], [1.0, 0.0])]
    np.testing.assert_allclose(jnp.exp(logits[0, :2]), sum(each) / 2, rtol=1e-5)
    assert jnp.exp(logits[0, 2]) == 0


def draw(seed, number):
    key = RandomStreams(jax.random.key(seed))["weight_noise"]
    params = {"kernel": jnp.zeros(3)}
    return WeightNoise(1.0, (".*",)).perturb(jax.random.fold_in(key, number), params)["kernel"][0]


def test_a_pattern_that_matches_nothing_is_named():
    with pytest.raises(ValueError, match=r"on: 'heads/.*' matches none"):
        WeightNoise(0.1, ("heads/.*",)).perturb(KEY, PARAMS)


def test_whole_numbers_have_no_noise():
    with pytest.raises(ValueError, match=r"on=\('\.\*',\) matches count, whose dtype is int32"):
        WeightNoise(0.1, (".*",)).perturb(KEY, PARAMS)


@pytest.mark.parametrize("draws", [0, -1, 1.5, True])
def test_draws_must_be_a_number_of_at_least_one(draws):
    with pytest.raises(ValueError, match=r"draws=.*: give a whole number of at least 1"):
        AveragedModel(None, WeightNoise(0.1), draws=draws, seed=0)
