"""Taps in a model: where the noise enters, when, and that it is nothing otherwise."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import noise

OPTIMAL = noise.LinearTransform(noise.Optimal())
LAYERS = 3


class Model(nn.Module):
    """Adds 1 at each layer; its first token is a class token."""

    injection: noise.Injection | None = None

    @nn.compact
    def __call__(self, x, train=False, mask=None, strength=None):
        taps = noise.open_taps(
            self,
            self.injection,
            num_layers=LAYERS,
            train=train,
            mask=mask,
            strength=strength,
            prefix_tokens=1,
        )
        x = taps(x, point="image")
        for layer in range(1, LAYERS + 1):
            x = taps(x, layer=layer, point="block_input")
            x = x + taps(jnp.ones_like(x), layer=layer, point="attention_input")
        return x


def sample():
    return jax.random.normal(jax.random.key(0), (4, 5, 6))


def apply(injection, x=None, **options):
    rngs = options.pop("rngs", {"noise": jax.random.key(3)})
    return Model(injection).apply({}, sample() if x is None else x, rngs=rngs, **options)


def test_it_acts_only_in_its_mode():
    plain = apply(None)
    for train, inference in [(True, False), (False, True)]:
        injection = noise.Injection(OPTIMAL, train=train, inference=inference)
        chex.assert_trees_all_equal(apply(injection, train=not train), plain)
        assert not np.allclose(apply(injection, train=train), plain)


def test_layer_and_point():
    x = sample()
    first = apply(noise.Injection(OPTIMAL, layer=1), train=True)
    chex.assert_trees_all_close(first, OPTIMAL(None, x) + LAYERS, rtol=1e-6)
    last = apply(noise.Injection(OPTIMAL), train=True)
    chex.assert_trees_all_close(last, OPTIMAL(None, x + 2) + 1, rtol=1e-6)
    both = apply(noise.Injection(OPTIMAL, layer=(1, 3)), train=True)
    expected = OPTIMAL(None, OPTIMAL(None, x) + 2) + 1
    chex.assert_trees_all_close(both, expected, rtol=1e-6)
    image = apply(noise.Injection(OPTIMAL, point="image"), train=True)
    chex.assert_trees_all_close(image, OPTIMAL(None, x) + LAYERS, rtol=1e-6)
    inside = apply(noise.Injection(noise.Gaussian(), point="attention_input", layer=2), train=True)
    residue = np.asarray(inside - x - LAYERS)
    assert residue.std() == pytest.approx(1.0, abs=0.3)


def test_patch_tokens_leave_the_class_token_alone():
    x = sample()
    y = apply(noise.Injection(OPTIMAL, layer=1, tokens="patch"), train=True)
    chex.assert_trees_all_close(y[:, 0], x[:, 0] + LAYERS, rtol=1e-6)
    chex.assert_trees_all_close(y[:, 1:], OPTIMAL(None, x[:, 1:]) + LAYERS, rtol=1e-6)


def test_random_draws_every_layer_and_each_as_often():
    def squares(layer, key):
        x = sample()
        model = Model().bind({}, rngs={"noise": key})
        injection = noise.Injection(OPTIMAL, layer=layer)
        taps = noise.open_taps(model, injection, num_layers=LAYERS, train=True)
        for number in range(1, LAYERS + 1):
            x = taps(x, layer=number, point="block_input") ** 2
        return x

    run = jax.jit(lambda key: squares("random", key))
    options = [squares(n, jax.random.key(0)) for n in (1, 2, 3)]
    counts = np.zeros(3, int)
    for seed in range(60):
        y = run(jax.random.key(seed))
        counts += [np.allclose(y, option, atol=1e-5) for option in options]
    assert counts.sum() == 60
    assert counts.min() >= 8


def test_devices_with_keys_of_their_own_agree_on_a_layer_drawn_evenly():
    transform = noise.LinearTransform(noise.Optimal(), axis_name="devices")
    injection = noise.Injection(transform, layer="random")

    def chosen(key):
        model = Model().bind({}, rngs={"noise": key})
        return noise.open_taps(model, injection, num_layers=12, train=True).chosen

    draw = jax.pmap(chosen, axis_name="devices")
    draws = np.stack([draw(jax.random.split(jax.random.key(seed), 8)) for seed in range(60)])
    assert (draws == draws[:, :1]).all()
    assert draws.mean() == pytest.approx(6.5, abs=1.5)  # 3.4 standard errors


def test_a_place_that_the_model_lacks_is_an_error_without_create_model_too():
    with pytest.raises(ValueError, match="no layer 9; its layers are 1 to 3"):
        apply(noise.Injection(OPTIMAL, layer=9), train=True)


def test_layers_draw_different_noise():
    zeros = jnp.zeros((2, 3, 4))
    one = apply(noise.Injection(noise.Gaussian(), layer=1), zeros, train=True)
    two = apply(noise.Injection(noise.Gaussian(), layer=2), zeros, train=True)
    assert not np.allclose(one, two)


def test_mask_and_traced_strength_reach_the_noise():
    x, mask = sample(), jnp.array([True, True, False, True])
    y = apply(noise.Injection(OPTIMAL, layer=1), train=True, mask=mask)
    chex.assert_trees_all_close(y, OPTIMAL(None, x, mask=mask) + LAYERS, rtol=1e-6)
    swept = jax.vmap(lambda s: apply(noise.Injection(OPTIMAL, layer=1), train=True, strength=s))(
        jnp.array([0.0, 1.0])
    )
    chex.assert_trees_all_close(swept[0], x + LAYERS, rtol=1e-6)
    chex.assert_trees_all_close(swept[1], OPTIMAL(None, x) + LAYERS, rtol=1e-5)


def test_stop_gradient():
    x = sample()
    plain = noise.Injection(OPTIMAL, layer=1)
    stopped = noise.Injection(OPTIMAL, layer=1, stop_gradient=True)
    chex.assert_trees_all_close(apply(plain, train=True), apply(stopped, train=True), atol=1e-5)
    gradient = jax.grad(lambda x: apply(stopped, x, train=True)[0].sum())(x)
    expected = jnp.zeros_like(x).at[0].set(1)
    chex.assert_trees_all_close(gradient, expected, atol=1e-6)


def test_a_missing_key_is_an_error_even_where_params_has_one():
    injection = noise.Injection(noise.Gaussian())
    with pytest.raises(ValueError, match=r"rngs=\{'noise'"):
        apply(injection, train=True, rngs={"params": jax.random.key(0)})
    apply(noise.Injection(OPTIMAL), train=True, rngs={})  # draws nothing, needs no key


def test_nothing_is_injected_while_initialising():
    model = Model(noise.Injection(noise.Gaussian()))
    assert model.init(jax.random.key(0), sample(), train=True) == {}
