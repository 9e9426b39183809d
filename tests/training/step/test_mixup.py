"""Mixup and CutMix: what is mixed with what, in which share, on any number of devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import parallel
from pnoise_jax.training.step.mixup import Mixing

BATCH = 8
# Image i is i in every pixel, so a mixture shows its share.
IMAGES = jnp.broadcast_to(jnp.arange(BATCH, dtype=jnp.float32)[:, None, None, None], (8, 16, 16, 3))
TARGETS = jnp.eye(BATCH)
PARTNER = np.roll(np.arange(BATCH), 2)


@functools.partial(jax.jit, static_argnums=0)
def _mix(mixing, seed):
    return mixing(jax.random.key(seed), IMAGES, TARGETS)


def mix(mixing, seed):
    images, targets = _mix(mixing, seed)
    chex.assert_trees_all_equal_shapes_and_dtypes((images, targets), (IMAGES, TARGETS))
    return np.array(images), np.array(targets)


def assert_two_are_mixed(images, targets):
    """Pixels and targets agree on both shares; returns that of the image itself."""
    share = np.diag(targets)
    np.testing.assert_allclose(share, share[0], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[np.arange(BATCH), PARTNER], 1 - share, atol=1e-6)
    expected = share * np.arange(BATCH) + (1 - share) * PARTNER
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), expected, atol=1e-4)
    return share[0]


@pytest.mark.parametrize("seed", range(4))
def test_mixup_blends_every_pixel(seed):
    images, targets = mix(Mixing(alpha=0.8), seed)
    share = assert_two_are_mixed(images, targets)
    assert 0 < share < 1
    np.testing.assert_allclose(images, np.broadcast_to(images[:, :1, :1, :1], images.shape))


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_pastes_a_box(seed):
    images, targets = mix(Mixing(cutmix_alpha=1.0), seed)
    assert_two_are_mixed(images, targets)
    for i, image in enumerate(images):
        pasted = image[..., 0] == PARTNER[i]
        np.testing.assert_array_equal(np.where(pasted, PARTNER[i], i), image[..., 0])
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        assert pasted.sum() == len(rows) * len(columns)  # one box, without holes
        for inside in (rows, columns):
            np.testing.assert_array_equal(np.diff(inside), 1)


def test_boxes_have_the_size_and_the_place_that_are_drawn():
    """Sides are sqrt(1 - share) of the image's, around any pixel, and cut off at the edges."""
    covered = []
    for seed in range(600):
        images, _ = mix(Mixing(cutmix_alpha=1.0), seed)
        pasted = images[0, ..., 0] == PARTNER[0]
        covered.append((pasted.any(axis=1), pasted.any(axis=0)))
    generator = np.random.default_rng(0)
    half = np.floor(16 * np.sqrt(generator.random((100_000, 1)))) // 2
    middle, pixels = generator.integers(0, 16, (100_000, 1)), np.arange(16)
    expected = np.mean((pixels >= middle - half) & (pixels < middle + half), axis=0)
    rows_and_columns = np.mean(covered, axis=0)
    np.testing.assert_allclose(rows_and_columns, [expected, expected], atol=0.08)


def test_the_middle_of_a_box_may_be_any_pixel():
    """Boxes of half the area, so 10 of 16 pixels wide, with 5 before the middle and 4 after."""
    keys = jax.random.split(jax.random.key(0), 8000)
    mixing = Mixing(cutmix_alpha=1e6)
    pasted = jax.vmap(lambda key: mixing(key, IMAGES[:3, ..., :1], TARGETS[:3])[0][0] == 1)(keys)
    pasted = np.asarray(pasted)[..., 0]
    middle, pixel = np.arange(16)[:, None], np.arange(16)
    expected = np.mean((pixel >= middle - 5) & (pixel < middle + 5), axis=0)
    for axis in (2, 1):
        np.testing.assert_allclose(pasted.any(axis=axis).mean(axis=0), expected, atol=0.02)


def test_shares_follow_the_beta_distribution():
    shares = [np.diag(mix(Mixing(alpha=0.4), seed)[1])[0] for seed in range(300)]
    beta = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.07)
    assert np.std(shares) == pytest.approx(np.std(beta), rel=0.1)


def test_the_probabilities_decide_how_often_images_are_mixed():
    mixing = Mixing(alpha=2.0, cutmix_alpha=2.0, probability=0.7, switch_probability=0.3)
    kinds = {"mixup": 0, "cutmix": 0, "unmixed": 0}
    for seed in range(400):
        images, targets = mix(mixing, seed)
        assert_two_are_mixed(images, targets)
        if (
            images[3].min() > 1 and images[3].max() < 3
        ):  # between image 3 and image 1 in every pixel
            kinds["mixup"] += 1
        elif images[3].min() < images[3].max():  # some pixels from each
            kinds["cutmix"] += 1
        else:  # or the box is empty
            kinds["unmixed"] += 1
    assert kinds["mixup"] / 400 == pytest.approx(0.7 * 0.7, abs=0.08)
    assert kinds["unmixed"] / 400 == pytest.approx(0.3, abs=0.1)
    assert kinds["cutmix"] / 400 == pytest.approx(0.7 * 0.3, abs=0.1)


def test_nothing_is_mixed_where_it_is_off():
    assert not Mixing().is_on
    assert not Mixing(alpha=1.0, probability=0.0).is_on
    images, targets = mix(Mixing(alpha=1.0, cutmix_alpha=1.0, probability=0.0), 0)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, TARGETS)


@pytest.mark.parametrize("cutmix_alpha", [0.1, 1.0])
def test_cutmix_at_a_layer_is_refused(cutmix_alpha):
    with pytest.raises(ValueError, match=f"mixup.cutmix_alpha={cutmix_alpha}: CutMix pastes boxes"):
        Mixing(alpha=0.2, cutmix_alpha=cutmix_alpha, layer=1)


@pytest.mark.parametrize("mixing", [Mixing(alpha=0.5), Mixing(cutmix_alpha=1.0)])
def test_devices_change_nothing_and_only_neighbours_exchange_images(mixing):
    sharding = parallel.split_batch(parallel.data_mesh())
    everywhere = parallel.replicated(parallel.data_mesh())
    compiled = (
        jax.jit(mixing, in_shardings=(everywhere, sharding, sharding), out_shardings=sharding)
        .lower(jax.random.key(0), IMAGES, TARGETS)
        .compile()
    )
    text = compiled.as_text()
    assert "collective-permute" in text
    assert "all-gather" not in text
    mixed = compiled(
        jax.device_put(jax.random.key(3), everywhere),
        jax.device_put(IMAGES, sharding),
        jax.device_put(TARGETS, sharding),
    )
    chex.assert_trees_all_close(mixed, mix(mixing, 3), atol=1e-6)
