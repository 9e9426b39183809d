"""Noise in unmodified NNX modules, and our models in NNX."""

import dataclasses
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from pnoise_jax import models, noise

OPTIMAL = noise.LinearTransform(noise.Optimal())
KEY = jax.random.key(0)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.head(x)


class DeepNet(Net):
    """Inherits `__call__`."""


@pytest.fixture
def net():
    return DeepNet(nnx.Rngs(0))


X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)


def test_noise_enters_where_the_pattern_says(net):
    injected = noise.inject_nnx(net, OPTIMAL, at="head")
    hidden = jnp.tanh(net.layers[1](jnp.tanh(net.layers[0](X))))
    chex.assert_trees_all_close(
        injected(X, inject=True), net.head(OPTIMAL(None, hidden)), rtol=1e-6
    )
    after = noise.inject_nnx(net, OPTIMAL, at="head", point="output")
    chex.assert_trees_all_close(after(X, inject=True), OPTIMAL(None, net(X)), rtol=1e-6)
    chex.assert_trees_all_equal(injected(X), net(X))  # by default there is no noise
    chex.assert_trees_all_equal(injected(X, inject=False), net(X))
    assert "__call__" not in vars(DeepNet)
    assert not hasattr(nnx.Linear.__call__, "__wrapped__")


class Nested(nnx.Module):
    def __init__(self, rngs):
        self.nets = nnx.List([Net(rngs)])

    def __call__(self, x):
        return self.nets[0](x)


def test_a_star_never_matches_a_slash():
    net = Nested(nnx.Rngs(0))
    injected = noise.inject_nnx(net, OPTIMAL, at="nets/*")
    chex.assert_trees_all_close(injected(X, inject=True), net(OPTIMAL(None, X)), rtol=1e-5)
    with pytest.raises(ValueError, match="matches no submodule"):
        noise.inject_nnx(net, OPTIMAL, at="layers/*")


def test_under_jit_and_grad_with_a_key_mask_and_strength(net):
    gaussian = noise.Gaussian()
    mask = jnp.array([True, True, False, True])

    @nnx.jit
    def noisy(net, key, strength):
        injected = noise.inject_nnx(net, gaussian, at="layers/*")
        return injected(X, inject=True, noise_key=key, noise_mask=mask, noise_strength=strength)

    output, clean = noisy(net, KEY, 0.5), net(X)
    chex.assert_trees_all_close(output[2], clean[2], rtol=1e-6)
    assert (output[:2] != clean[:2]).all()
    chex.assert_trees_all_close(noisy(net, KEY, 0.0), clean, rtol=1e-6)
    assert (noisy(net, jax.random.key(1), 0.5)[0] != output[0]).all()

    def loss(net):
        injected = noise.inject_nnx(net, noise.Erase(), at="head", stop_gradient=True)
        return injected(X, inject=True).sum()

    gradient = nnx.grad(loss)(net)
    assert jnp.abs(gradient["layers"][0]["kernel"][...]).max() > 0  # as if there were no noise


def test_other_threads_get_no_noise(net):
    seen = []
    hook = noise.inject_nnx(net, _CallsInAThread(lambda: seen.append(net(X))), at="head")
    hook(X, inject=True)
    chex.assert_trees_all_equal(seen[0], net(X))


@dataclasses.dataclass(frozen=True)
class _CallsInAThread(noise.Noise):
    function: object
    strength: float = 1.0

    draws = False

    def noisy(self, key, x, *, mask, strength, index):
        thread = threading.Thread(target=self.function)
        thread.start()
        thread.join()
        return 0 * x


class Repeated(nnx.Module):
    """Calls a copy of its layer."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return nnx.clone(self.layer)(x)


def test_bad_input(net):
    for arguments, message in (
        ({"at": "layer/0"}, "matches no submodule; did you mean 'layers/0'"),
        ({"at": ""}, "matches no submodule"),
        ({"at": "head", "point": "middle"}, "choose 'input' or 'output'"),
    ):
        with pytest.raises(ValueError, match=message):
            noise.inject_nnx(net, OPTIMAL, **arguments)
    with pytest.raises(ValueError, match=r"give an nnx\.Module; for Linen, use InjectedModule"):
        noise.inject_nnx(nn.Dense(3), OPTIMAL, at="*")
    with pytest.raises(ValueError, match="this noise is random: give noise_key"):
        noise.inject_nnx(net, noise.Gaussian(), at="head")(X, inject=True)
    with pytest.raises(ValueError, match="matches layer, which this call did not call"):
        noise.inject_nnx(Repeated(nnx.Rngs(0)), OPTIMAL, at="layer")(X, inject=True)
    with pytest.raises(ValueError, match=r"needs a Linen module.*inject_nnx"):
        noise.InjectedModule(net, OPTIMAL, at="head")


def test_our_models_work_in_nnx_through_flaxs_bridge():
    injection = noise.Injection(OPTIMAL, inference=True)
    model = models.create_model(
        "vit_ti_16", image_size=8, patch_size=4, dim=12, depth=2, num_classes=3, injection=injection
    )
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)
    bridged = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0)).lazy_init(images)
    output = bridged(images)
    assert output.shape == (4, 3)
    params = nnx.to_pure_dict(nnx.state(bridged, nnx.Param))
    chex.assert_trees_all_close(output, model.apply({"params": params}, images), rtol=1e-5)


class OneByOne(Net):
    """Calls its first layer on one example at a time, or on all of them in a loop."""

    def __init__(self, rngs, how):
        super().__init__(rngs)
        self.how = how

    def __call__(self, x):
        layer = self.layers[0]
        if self.how == "vmap":
            return jax.vmap(layer)(x)
        if self.how == "map":
            return jax.lax.map(layer, x)
        return jax.lax.fori_loop(0, 2, lambda _, x: layer(x), x)


@pytest.mark.parametrize("how", ["vmap", "map", "fori_loop"])
def test_drawing_the_same_for_all_examples_or_steps_is_refused(how, net):
    injected = noise.inject_nnx(OneByOne(nnx.Rngs(0), how), noise.Gaussian(), at="layers/0")
    for call in (injected, jax.jit(injected, static_argnames="inject")):
        with pytest.raises(ValueError, match=r"'layers/0' is called inside jax\.vmap or a loop"):
            call(X, inject=True, noise_key=KEY)
    several = jax.vmap(
        lambda key: noise.inject_nnx(net, noise.Gaussian(), at="head")(
            X, inject=True, noise_key=key
        )
    )(jax.random.split(KEY, 2))
    assert (several[0] != several[1]).all()  # around a whole call, as in a sweep


def test_mixing_inside_vmap_is_refused():
    x = jnp.ones((4, 8, 3))
    injected = noise.inject_nnx(OneByOne(nnx.Rngs(0), "vmap"), OPTIMAL, at="layers/0")
    with pytest.raises(ValueError, match=r"gets \[8, 3\] inside vmap"):
        injected(x, inject=True)
    injected(x, inject=True, noise_mask=jnp.ones(8, bool))


class Twice(Net):
    """Calls its head twice, through one function that JAX traces only once."""

    def __call__(self, x):
        function = jax.checkpoint(lambda x: self.head(x))
        return function(x), function(x)


def test_a_function_that_is_traced_once_draws_at_each_call():
    injected = noise.inject_nnx(Twice(nnx.Rngs(0)), noise.Gaussian(), at="head", point="output")
    first, second = injected(X, inject=True, noise_key=KEY)
    assert (first != second).all()
    chex.assert_trees_all_equal(*injected(X))


class OwnDerivative(Net):
    """Its derivative is its own, but computed by functions that it gives."""

    def __call__(self, x):
        function = jax.custom_vjp(lambda x: self.head(x))
        function.defvjp(lambda x: jax.vjp(self.head, x), lambda vjp, g: vjp(g))
        return function(x)


def test_noise_that_a_gradient_would_lack_is_refused():
    injected = noise.inject_nnx(OwnDerivative(nnx.Rngs(0)), OPTIMAL, at="head")

    def loss(x):
        return (injected(x, inject=True) ** 2).sum()

    compiled = jax.jit(jax.grad(loss))(X)
    chex.assert_trees_all_close(jax.grad(loss)(X), compiled, rtol=1e-5)
    with pytest.raises(ValueError, match="'head' is called inside a function with its own"):
        jax.grad(jax.jit(loss))(X)


class Recomputed(nnx.Module):
    """JAX caches the trace of its body, keyed by the module."""

    def __init__(self):
        self.body, self.head = (nnx.Linear(3, 3, rngs=nnx.Rngs(n)) for n in range(2))

    def __call__(self, x):
        return self.head(jax.checkpoint(self.body)(x))


def test_cached_inner_traces_keep_no_noise():
    net = Recomputed()
    injected, clean = noise.inject_nnx(net, OPTIMAL, at="body"), Recomputed()(X)
    noisy = injected(X, inject=True)
    assert not np.allclose(noisy, clean)
    chex.assert_trees_all_equal(net(X), clean)
    chex.assert_trees_all_equal(injected(X), clean)
    chex.assert_trees_all_equal(injected(X, inject=True), noisy)
    both = nnx.jit(lambda x: (injected(x, inject=True), injected(x)))(X)
    chex.assert_trees_all_close(both, (noisy, clean), rtol=1e-6)
