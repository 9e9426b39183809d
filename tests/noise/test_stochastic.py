"""Gaussian and salt-and-pepper noise."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pnoise_jax import noise

KEY = jax.random.key(0)
NOISES = [
    noise.Gaussian(mean=0.5, std=2.0),
    noise.SaltAndPepper(0.4),
    noise.SaltAndPepper(0.4, extremes="batch"),
]


def sample(shape=(16, 5, 3)):
    return jax.random.normal(jax.random.key(1), shape)


def test_gaussian_has_the_stated_moments():
    x = jnp.zeros((64, 100, 10))
    e = noise.Gaussian(mean=0.5, std=2.0, strength=3.0)(KEY, x)
    standard_error = 6.0 / math.sqrt(e.size)
    assert float(e.mean()) == pytest.approx(1.5, abs=5 * standard_error)
    assert float(e.std()) == pytest.approx(6.0, rel=0.02)
    assert abs(np.corrcoef(e[0].ravel(), e[1].ravel())[0, 1]) < 0.15  # examples are independent


@pytest.mark.parametrize("extremes", ["image", "batch"])
def test_salt_and_pepper_is_equation_18(extremes):
    x = sample((32, 50, 20))
    y = noise.SaltAndPepper(0.4, extremes=extremes)(KEY, x)
    over = (1, 2) if extremes == "image" else (0, 1, 2)
    salt, pepper = y == x.max(over, keepdims=True), y == x.min(over, keepdims=True)
    chex.assert_trees_all_equal(jnp.where(salt | pepper, x, y), x)
    for share in (salt.mean(), pepper.mean()):
        assert float(share) == pytest.approx(0.2, abs=0.01)


def test_only_extremes_of_single_images_have_a_gradient():
    x = sample()
    ours = jax.grad(lambda x: noise.SaltAndPepper(1.0)(KEY, x).sum())(x)
    np.testing.assert_allclose(ours.sum(axis=(1, 2)), 15.0)  # each image's at its two extremes
    assert int((ours != 0).sum()) == 32
    batch = noise.SaltAndPepper(1.0, extremes="batch")
    assert not jax.grad(lambda x: batch(KEY, x).sum())(x).any()


def test_strength_zero_is_bitwise_nothing():
    x = sample()
    chex.assert_trees_all_equal(noise.Gaussian(strength=0.0)(KEY, x), x)
    chex.assert_trees_all_equal(noise.SaltAndPepper(0.0)(KEY, x), x)
    chex.assert_trees_all_equal(noise.SaltAndPepper(0.4)(KEY, x, strength=0.0), x)


@pytest.mark.parametrize("kind", NOISES, ids=repr)
def test_keys_reproduce_and_differ(kind):
    x = sample()
    chex.assert_trees_all_equal(kind(KEY, x), kind(KEY, x))
    assert not np.array_equal(kind(KEY, x), kind(jax.random.key(5), x))


def test_an_example_gets_the_same_noise_whatever_its_batch():
    x = sample()
    for kind in NOISES[:2]:
        chex.assert_trees_all_equal(kind(KEY, x)[:5], kind(KEY, x[:5]))


@pytest.mark.parametrize("kind", NOISES, ids=repr)
def test_padding_neither_gives_nor_receives(kind):
    x, mask = sample(), jnp.arange(16) < 11
    y = kind(KEY, x, mask=mask)
    chex.assert_trees_all_equal(y[11:], x[11:])
    chex.assert_trees_all_equal(y[:11], kind(KEY, x[:11]))


def test_each_group_has_its_own_extremes():
    x = sample()
    grouped = noise.SaltAndPepper(1.0, extremes="batch", group_size=4)(KEY, x)
    for start in range(0, 16, 4):
        group = x[start : start + 4]
        assert set(np.unique(grouped[start : start + 4])) == {
            float(group.min()),
            float(group.max()),
        }


@pytest.mark.parametrize("group_size", [None, 2, 8])
@pytest.mark.parametrize("kind", NOISES, ids=repr)
def test_eight_devices_equal_one(kind, group_size):
    if group_size is not None:
        if not isinstance(kind, noise.SaltAndPepper):
            pytest.skip("has no groups")
        kind = noise.SaltAndPepper(0.4, extremes="batch", group_size=group_size)
    x, mask = sample(), jnp.arange(16) < 11
    expected = kind(KEY, x, mask=mask)
    for axis_type in (AxisType.Auto, AxisType.Explicit):
        sharding = NamedSharding(jax.make_mesh((8,), ("data",), (axis_type,)), P("data"))
        got = jax.jit(lambda x, m: kind(KEY, x, mask=m))(
            jax.device_put(x, sharding), jax.device_put(mask, sharding)
        )
        chex.assert_trees_all_close(jax.device_get(got), expected, atol=1e-6)
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    mapped = dataclasses.replace(kind, axis_name="data")
    run = functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    got = jax.jit(run(lambda x, m: mapped(KEY, x, mask=m)))(x, mask)
    chex.assert_trees_all_close(got, expected, atol=1e-6)


def test_devices_that_would_draw_the_same_are_refused():
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    run = functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    x, gaussian = jnp.zeros((16, 5)), noise.Gaussian()
    with pytest.raises(ValueError, match=r"mapped axes data, .*give the noise the axis_name"):
        run(lambda x: gaussian(KEY, x))(x)
    own = run(lambda x: gaussian(jax.random.fold_in(KEY, jax.lax.axis_index("data")), x))(x)
    by_number = run(lambda x, index: gaussian(KEY, x, index=index))(x, jnp.arange(16))
    for different in (own, by_number):
        assert len(np.unique(different)) == x.size
    same = run(lambda x: gaussian(jax.lax.pcast(KEY, "data", to="varying"), x))(x)
    assert len(np.unique(same)) == x.size / 8


@pytest.mark.parametrize("kind", NOISES)
def test_an_empty_batch_stays_empty(kind):
    for mask in (None, jnp.zeros(0, bool)):
        assert kind(KEY, jnp.zeros((0, 5)), mask=mask).shape == (0, 5)


def test_bfloat16_is_kept():
    x = sample().astype(jnp.bfloat16)
    for kind in NOISES:
        assert kind(KEY, x).dtype == jnp.bfloat16


@pytest.mark.parametrize("strength", [1.5, -0.1, 2, np.float32(1.5)])
def test_a_strength_must_be_a_probability(strength):
    with pytest.raises(ValueError, match=r"strength=.*: give a number in \[0, 1\]"):
        noise.SaltAndPepper(0.8)(KEY, sample(), strength=strength)


def test_a_traced_probability_is_clipped():
    x, kind = sample(), noise.SaltAndPepper(0.8)
    apply = jax.jit(lambda strength: kind(KEY, x, strength=strength))
    chex.assert_trees_all_equal(apply(1.5), noise.SaltAndPepper(1.0)(KEY, x))
    chex.assert_trees_all_equal(apply(-1.0), x)


def test_only_extremes_of_the_batch_mix_examples():
    assert [kind.mixes for kind in NOISES] == [None, None, "batch"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise.SaltAndPepper(1.2), r"probability=1.2: give a number in \[0, 1\]"),
        (lambda: noise.SaltAndPepper(0.1, extremes="row"), "'image', 'batch'"),
        (lambda: noise.SaltAndPepper(0.1, group_size=-1), "group_size=-1"),
        (lambda: noise.Gaussian(std=-1.0), "std=-1.0"),
        (lambda: noise.Gaussian(strength=math.inf), "strength=inf"),
        (lambda: noise.Gaussian()(None, sample()), "give it a key"),
        (lambda: noise.Gaussian()(KEY, sample(), mask=jnp.ones((16, 5), bool)), "expected"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
