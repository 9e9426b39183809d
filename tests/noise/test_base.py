"""Your own noise: what it must have, and that it works as ours do."""

import dataclasses
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pnoise_jax import noise


@dataclasses.dataclass(frozen=True)
class Scale(noise.Noise):
    """Scales each example by a random factor; the example in the documentation."""

    strength: float = 0.1
    spread: float = 1.0

    def noisy(self, key, x, *, mask, strength, index):
        factor = noise.draw_per_example(jax.random.normal, key, x[:, :1], index)
        return x * (1 + strength * self.spread * factor)


KEY = jax.random.key(3)


def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def test_your_own_noise_keeps_masked_examples_and_the_dtype():
    x = images().astype(jnp.bfloat16)
    mask = jnp.array([True, False, True, True, False, True])
    with jax.numpy_dtype_promotion("standard"):  # float32 inside
        noisy = Scale()(KEY, x, mask=mask)
    assert noisy.dtype == x.dtype
    chex.assert_trees_all_equal(noisy[~mask], x[~mask])
    assert (noisy[mask] != x[mask]).any(axis=1).all()


def test_your_own_noise_accepts_a_traced_strength_and_draws_by_index():
    x = images()
    noisy = jax.jit(lambda x, strength: Scale()(KEY, x, strength=strength))(x, 0.5)
    chex.assert_trees_all_close(noisy, Scale(0.5)(KEY, x), rtol=1e-6)
    order = jnp.array([3, 0, 5, 1, 2, 4])
    permuted = Scale()(KEY, x[order], index=order)
    chex.assert_trees_all_close(permuted, Scale()(KEY, x)[order], rtol=1e-6)


def test_your_own_noise_works_in_an_injection_and_in_any_module():
    assert noise.Injection(Scale()).with_strength(0.7).noise == Scale(0.7)
    assert noise.Injection(Scale()).in_batches_of(5).noise == Scale()
    model = noise.InjectedModule(nn.Sequential([nn.Dense(3), nn.Dense(2)]), Scale(), at="layers_1")
    variables = model.init(KEY, images())
    clean = model.apply(variables, images())
    noisy = model.apply(variables, images(), inject=True, rngs={"noise": KEY})
    assert (noisy != clean).all()


def _noise_class(name, bases=(noise.Noise,), frozen=True, **members):
    members.setdefault("__annotations__", {"strength": float})
    members.setdefault("strength", 1.0)
    return dataclasses.dataclass(frozen=frozen)(type(name, bases, members))


def _noisy(self, key, x, *, mask, strength, index):
    return x


def _noisy_without_keywords(self, key, x):
    return x


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            _noise_class("Mine", noisy=_noisy_without_keywords),
            "Mine.noisy does not accept mask, strength, index: change its",
        ),
        (_noise_class("Mine"), "Mine has no method noisy"),
        (
            _noise_class("Mine", bases=(), noisy=_noisy),
            "make it a subclass of pnoise_jax.noise.Noise",
        ),
        (_noise_class("Mine", noisy=_noisy, frozen=False), "Mine must be a frozen dataclass"),
        (type("Mine", (noise.Noise,), {"noisy": _noisy}), "Mine must be a frozen dataclass"),
        (
            dataclasses.dataclass(frozen=True)(type("Mine", (noise.Noise,), {"noisy": _noisy})),
            "Mine has no strength: add a field",
        ),
        (_noise_class("Mine", noisy=_noisy, mixes="batch"), "mixes examples but has no group_size"),
        (lambda x: x, "is not a noise"),
    ],
)
def test_an_error_names_what_a_noise_lacks(kind, message):
    with pytest.raises(ValueError, match=message):
        noise.register_noise("mine")(kind)
    if isinstance(kind, type):
        with pytest.raises(ValueError, match="Mine"):
            noise.Injection(kind())


def test_bad_input_at_the_call():
    wrong = _noise_class("Wrong", noisy=lambda self, key, x, *, mask, strength, index: x[:1])
    with pytest.raises(ValueError, match=r"Wrong.noisy returned shape \(1, 4\) for x of shape"):
        wrong()(KEY, images())
    with pytest.raises(ValueError, match="this noise is random: give it a key"):
        Scale()(None, images())
    unhashable = _noise_class("Listed", noisy=_noisy, __annotations__={"strength": list})
    with pytest.raises(ValueError, match="cannot be hashed"):
        noise.Injection(unhashable([1.0]))
    with pytest.raises(ValueError, match="give a noise, such as"):
        noise.Injection(Scale)


@pytest.fixture
def registered():
    noise.register_noise("scale")(Scale)
    yield
    del noise.NOISES._things["scale"]


@pytest.mark.usefixtures("registered")
def test_a_config_names_a_registered_noise():
    section = {"name": "scale", "strength": 0.3, "options": {"spread": 2.0}, "layer": "2"}
    injection = noise.Injection.from_config(section)
    assert injection == noise.Injection(Scale(0.3, 2.0), layer=2)
    with pytest.raises(ValueError, match=r"noise.radius=3 is set, but scale does not use it"):
        noise.Injection.from_config({"name": "scale", "options": {"radius": 3}})
    with pytest.raises(
        ValueError, match=r"noise.options={'strength': 0.9}: strength is a field of the section"
    ):
        noise.Injection.from_config(section | {"options": {"strength": 0.9}})
    with pytest.raises(ValueError, match=r"noise 'scale' is already registered as .*Scale: choose"):
        noise.register_noise("scale")(_noise_class("Other", noisy=_noisy))
    assert noise.register_noise("scale")(Scale) is Scale  # as if its module were imported again


def test_a_config_imports_a_noise_by_module_and_name():
    section = {"name": f"{__name__}:Scale", "strength": 0.3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])
        assert noise.Injection.from_config(section).noise == Scale(0.3)
    for name, message in (
        ("no_such_module:Scale", "cannot be imported .*ModuleNotFoundError"),
        ("dataclasses:Scale", "cannot be imported .*AttributeError"),
        ("dataclasses:field", "field is not a noise"),
        ("gausian", "unknown noise 'gausian'; did you mean 'gaussian'"),
    ):
        with pytest.raises(ValueError, match=message):
            noise.Injection.from_config({"name": name})


def test_a_chain_applies_its_noises_in_order():
    x = images()
    shift = noise.LinearTransform(noise.CyclicShift(0.4))
    chain = noise.Chain((Scale(), shift))
    first = Scale()(jax.random.fold_in(KEY, 0), x)
    chex.assert_trees_all_equal(chain(KEY, x), shift(None, first))
    halved = chain.with_strength(0.5)(KEY, x)
    weaker = noise.Chain((Scale(0.05), noise.LinearTransform(noise.CyclicShift(0.2))))
    chex.assert_trees_all_close(halved, weaker(KEY, x), rtol=1e-6)
    assert chain.draws
    assert chain.mixes == "batch"
    in_twos = noise.Injection(chain).in_batches_of(2).noise
    chex.assert_trees_all_close(
        in_twos(KEY, x)[:2], noise.Chain((Scale(), shift))(KEY, x[:2]), rtol=1e-6
    )


def test_bad_input_of_a_chain():
    mixing = noise.LinearTransform(noise.Optimal(), group_size=2)
    views = noise.LinearTransform(noise.Optimal(), axis="views", group_size=2)
    for noises, message in (
        ((Scale(),), "give two or more"),
        ((Scale(), "gaussian"), "give a noise, such as"),
        ((mixing, views), "make them agree"),
        ((mixing, noise.LinearTransform(noise.Optimal(), group_size=3)), "make them agree"),
    ):
        with pytest.raises(ValueError, match=message):
            noise.Chain(noises)
    pair = (noise.SaltAndPepper(0.8), noise.Erase(0.0))
    for use in (
        lambda: noise.Chain(pair, strength=2.0),
        lambda: noise.Chain(pair).with_strength(2.0),
        lambda: noise.Chain(pair)(KEY, images(), strength=2.0),
    ):
        with pytest.raises(
            ValueError, match=r"strength=2.0 multiplies .*0.8.*: strength=1.6: give"
        ):
            use()


@pytest.mark.parametrize(
    ("each", "off"),
    [
        (noise.Gaussian(std=0.1), False),
        (noise.Gaussian(std=0.1, strength=0.0), True),
        (noise.Gaussian(std=0.0), True),
        (noise.Gaussian(std=0.0, mean=0.1), False),
        (noise.SaltAndPepper(0.0), True),
        (noise.LinearTransform(noise.CyclicShift(0.3)), False),
        (noise.LinearTransform(noise.CyclicShift(0.0)), True),
        (noise.Chain((noise.Gaussian(std=0.0), noise.SaltAndPepper(0.0))), True),
        (noise.Chain((noise.Gaussian(std=0.0), noise.SaltAndPepper(0.3))), False),
        (noise.Chain((noise.Gaussian(), noise.SaltAndPepper(0.1)), strength=0.0), True),
    ],
)
def test_noise_that_is_off_changes_nothing(each, off):
    x = jax.random.normal(jax.random.key(0), (4, 3, 2))
    assert each.is_off == off
    assert np.array_equal(each(jax.random.key(1), x), x) == off


@dataclasses.dataclass(frozen=True)
class UnsaidMean(noise.Noise):
    """Mixes the batch without declaring it."""

    strength: float = 1.0
    draws = False

    def noisy(self, key, x, *, mask, strength, index):
        return x + strength * x.mean(axis=0)


def test_a_noise_that_mixes_without_declaring_it_is_refused():
    with pytest.raises(ValueError, match=r'UnsaidMean makes an example depend .* mixes = "batch"'):
        noise.Injection(UnsaidMean(), layer=1)
    noise.Injection(UnsaidMean(strength=0.0), layer=1)


def test_a_mask_must_be_bool():
    x = jnp.ones((3, 2))
    for mask in (jnp.array([1, 0, 2]), jnp.array([0.0, 0.0, -1e9])):
        with pytest.raises(ValueError, match=f"mask is {mask.dtype}: give bool"):
            noise.LinearTransform(noise.Optimal())(None, x, mask=mask)
    with pytest.raises(ValueError, match="mask has type list; expected an array"):
        noise.LinearTransform(noise.Optimal())(None, x, mask=[True, False, True])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (jnp.array([3]), r"index has shape \(1,\); expected an array \(batch,\) = \(6,\)"),
        (jnp.arange(12), r"index has shape \(12,\)"),
        (jnp.arange(6)[:, None], r"index has shape \(6, 1\)"),
        (list(range(6)), "index has type list; expected an array"),
        (3, "index has type int"),
        (jnp.arange(6) + 0.5, "index is float32: give int32"),
        (jnp.ones(6, bool), "index is bool: give int32"),
    ],
)
def test_an_index_must_have_a_whole_number_for_each_example(index, message):
    with pytest.raises(ValueError, match=message):
        Scale()(KEY, images(), index=index)


def test_a_traced_index_is_checked():
    draw = jax.jit(lambda index: Scale()(KEY, images(), index=index))
    chex.assert_trees_all_close(draw(np.arange(6)), Scale()(KEY, images()), rtol=1e-6)
    with pytest.raises(ValueError, match=r"index has shape \(1,\)"):
        draw(jnp.array([3]))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (0, r"key has type int; expected jax.random.key\(seed\)"),
        (jax.random.split(KEY, 6), r"key is key<fry>\[6\]: give one key, such as"),
        (jax.random.split(jax.random.PRNGKey(0), 6), r"key is uint32\[6, 2\]: give one key"),
        (jnp.ones(2), r"key is float32\[2\]"),
    ],
)
def test_a_key_must_be_one_key(key, message):
    with pytest.raises(ValueError, match=message):
        Scale()(key, images())


def test_old_keys_and_keys_under_vmap():
    x = images()
    assert Scale()(jax.random.PRNGKey(0), x).shape == x.shape
    assert jax.vmap(lambda key: Scale()(key, x))(jax.random.split(KEY, 2)).shape == (2, *x.shape)


def test_a_list_is_refused():
    with pytest.raises(ValueError, match=r"x has type list; expected a float array \(batch, ...\)"):
        Scale()(KEY, [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (jnp.ones(6), r"strength has shape \(6,\): give one number for all examples; for several"),
        (np.ones((6, 1)), r"strength has shape \(6, 1\)"),
        (math.nan, "strength=nan: give a finite number"),
        (np.float32("inf"), r"strength=.*inf.*: give a finite number"),
        ("0.1", "strength='0.1': give a finite number"),
        ([0.1], r"strength=\[0.1\]: give a finite number"),
    ],
)
@pytest.mark.parametrize(
    "kind", [Scale(), noise.Erase(), noise.LinearTransform(noise.Optimal())], ids=repr
)
def test_a_strength_must_be_one_finite_number(kind, strength, message):
    with pytest.raises(ValueError, match=message):
        kind(KEY, images(), strength=strength)


@pytest.mark.parametrize(
    "strength", [0.5, jnp.float32(0.5), np.float32(0.5), np.array(0.5), nnx.Param(jnp.array(0.5))]
)
def test_a_strength_can_be_any_kind_of_number(strength):
    halved = noise.Erase()(None, images(), strength=strength)
    chex.assert_trees_all_close(halved, 0.5 * images(), rtol=1e-6)


def test_several_strengths_by_vmap():
    strengths = jnp.array([0.1, 0.5])
    several = jax.vmap(lambda strength: noise.Erase()(None, images(), strength=strength))(strengths)
    chex.assert_trees_all_close(several[1], 0.5 * images(), rtol=1e-6)
