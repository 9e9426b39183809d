"""Taps in a model: where and when noise enters, and that they otherwise do nothing."""

import dataclasses

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

    injection: noise.Injection | tuple[noise.Injection, ...] | None = None

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


def test_noise_acts_only_in_its_mode():
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


def test_random_draws_all_layers_about_equally_often():
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


TRANSFORM = noise.LinearTransform(noise.Optimal(), axis_name="devices")


@pytest.mark.parametrize("each", [TRANSFORM, noise.Chain((noise.Erase(), TRANSFORM))])
def test_devices_with_different_keys_agree_on_a_layer_drawn_evenly(each):
    injection = noise.Injection(each, layer="random")

    def chosen(key):
        model = Model().bind({}, rngs={"noise": key})
        return noise.open_taps(model, injection, num_layers=12, train=True).active[0].chosen

    draw = jax.pmap(chosen, axis_name="devices")
    draws = np.stack([draw(jax.random.split(jax.random.key(seed), 8)) for seed in range(60)])
    assert (draws == draws[:, :1]).all()
    assert draws.mean() == pytest.approx(6.5, abs=1.5)  # 3.4 standard errors


def test_a_place_that_the_model_lacks_is_an_error_without_create_model_too():
    with pytest.raises(ValueError, match="no layer 9; its layers are 1 to 3"):
        apply(noise.Injection(OPTIMAL, layer=9), train=True)


def test_layers_draw_different_noise():
    zeros = jnp.zeros((2, 3, 4))
    first = apply(noise.Injection(noise.Gaussian(), layer=1), zeros, train=True)
    second = apply(noise.Injection(noise.Gaussian(), layer=2), zeros, train=True)
    assert not np.allclose(first, second)


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


# Several injections -------------------------------------------------------------------------------

GAUSSIAN = noise.Gaussian()
CYCLIC = noise.LinearTransform(noise.CyclicShift(0.4))


def added(injection, **options):
    """The noise that the model adds to an input of 0, if it does nothing but add noise."""
    zeros = jnp.zeros((2, 3, 4))
    return apply(injection, zeros, train=True, **options) - LAYERS


def test_each_acts_at_its_own_place():
    x = sample()
    first = noise.Injection(OPTIMAL, layer=1, tokens="patch")
    second = noise.Injection(CYCLIC, layer=(2, 3), stop_gradient=True)
    image = noise.Injection(CYCLIC, point="image")
    y = apply((first, second, image), train=True)
    expected = apply(first, CYCLIC(None, x), train=True) - 2
    expected = CYCLIC(None, CYCLIC(None, expected) + 1) + 1
    chex.assert_trees_all_close(y, expected, rtol=1e-5)


def test_at_one_place_they_act_in_their_order():
    gaussian, erase = noise.Injection(GAUSSIAN, layer=2), noise.Injection(noise.Erase(), layer=2)
    chex.assert_trees_all_close(added((gaussian, erase)), added(erase))
    chex.assert_trees_all_close(added((erase, gaussian)), added(erase) + added_second(gaussian))


def added_second(injection):
    """What an injection adds in the second place."""
    return added((noise.Injection(OPTIMAL, train=False), injection))


@pytest.mark.parametrize("acts", [True, False])
def test_a_key_depends_only_on_the_position(acts):
    first, second = (noise.Injection(GAUSSIAN, layer=layer) for layer in (1, 3))
    other = noise.Injection(GAUSSIAN, layer=2, train=acts)
    at_first = added(second)
    chex.assert_trees_all_equal(added((second, noise.Injection(OPTIMAL, train=False))), at_first)
    at_second = added((first, second)) - added(first)
    chex.assert_trees_all_close(added((other, second)) - added(other), at_second, atol=1e-5)
    assert abs(np.corrcoef(at_second.ravel(), at_first.ravel())[0, 1]) < 0.8
    assert np.abs(at_second - at_first).min() > 1e-3


def test_no_two_injections_draw_the_same():
    injections = [noise.Injection(GAUSSIAN, layer=layer) for layer in (1, 1, 2, 2, 1)]
    draws = [
        added(tuple(injections[: n + 1])) - added(tuple(injections[:n]) or None) for n in range(5)
    ]
    for n, draw in enumerate(draws):
        for other in draws[:n]:
            assert np.abs(draw - other).max() > 0.5


def test_random_layers_are_drawn_independently():
    both = (noise.Injection(OPTIMAL, layer="random"), noise.Injection(CYCLIC, layer="random"))

    def chosen(key):
        model = Model().bind({}, rngs={"noise": key})
        taps = noise.open_taps(model, both, num_layers=3, train=True)
        return jnp.stack([active.chosen for active in taps.active])

    draws = jax.vmap(chosen)(jax.random.split(jax.random.key(0), 200))
    assert {tuple(pair) for pair in draws.tolist()} == {
        (a, b) for a in (1, 2, 3) for b in (1, 2, 3)
    }


@pytest.mark.parametrize("as_array", [True, False])
def test_each_injection_has_its_own_strength(as_array):
    both = (noise.Injection(OPTIMAL, layer=1), noise.Injection(CYCLIC, layer=2))
    strengths = jnp.array([0.5, 0.2]) if as_array else (jnp.float32(0.5), 0.2)
    y = jax.jit(lambda s: apply(both, train=True, strength=s))(strengths)
    expected = CYCLIC(None, OPTIMAL(None, sample(), strength=0.5) + 1, strength=0.2) + 2
    chex.assert_trees_all_close(y, expected, rtol=1e-5)
    only_second = (noise.Injection(OPTIMAL, layer=1, train=False), both[1])
    y = apply(only_second, train=True, strength=strengths)
    chex.assert_trees_all_close(y, CYCLIC(None, sample() + 1, strength=0.2) + 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("count", "strength", "message"),
    [
        (2, 0.3, r"shape \(\) for 2 injections; give one for each, as a tuple or an array \(2,\)"),
        (2, (0.3, 0.2, 0.1), r"shape \(3,\) for 2 injections"),
        (1, jnp.ones(2), r"shape \(2,\) for 1 injection; give a scalar"),
        (0, 0.3, r"noise_strength=0.3, but the model has no injection"),
    ],
)
def test_a_wrong_number_of_strengths_is_an_error(count, strength, message):
    injections = (noise.Injection(OPTIMAL, layer=1), noise.Injection(CYCLIC, layer=2))[:count]
    with pytest.raises(ValueError, match=message):
        apply(injections, train=True, strength=strength)


def test_each_injection_is_checked():
    good = noise.Injection(OPTIMAL)
    with pytest.raises(ValueError, match="no layer 9"):
        apply((good, noise.Injection(OPTIMAL, layer=9)), train=True)
    for wrong in (OPTIMAL, (good, OPTIMAL), "last"):
        with pytest.raises(ValueError, match=r"injection=.*: give a noise\.Injection, a tuple"):
            apply(wrong, train=True)


def test_an_evaluation_turns_all_on_if_none_acts_at_inference():
    switch = noise.switch_for_evaluation
    off, on = noise.Injection(OPTIMAL), noise.Injection(OPTIMAL, inference=True)
    assert switch(None) == ()
    assert switch(off) == (on,)
    assert switch((off, on)) == (off, on)
    assert switch((off, off)) == (on, on)


def test_a_traced_layer_is_refused_where_noise_acts():
    x, layer = sample(), jnp.asarray(1)
    idle = noise.Taps((), num_layers=2, prefix_tokens=0)
    chex.assert_trees_all_equal(jax.jit(idle_call(idle))(x, layer), x)
    with pytest.raises(ValueError, match="give the layer's number as a Python int"):
        dataclasses.replace(idle, active=("something",))(x, point="block_input", layer=layer)


def idle_call(taps):
    return lambda x, layer: taps(x, point="block_input", layer=layer)
