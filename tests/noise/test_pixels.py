"""Noise on the image: in pixels from 0 to 1, clipped; other pixels stay bitwise the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models, noise

SCALE = noise.PixelScale(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
NOISES = {
    "gaussian": noise.Gaussian(std=0.2),
    "salt_and_pepper": noise.SaltAndPepper(0.3),
    "cyclic_shift": noise.LinearTransform(noise.CyclicShift(0.3)),
    "reverse": noise.LinearTransform(noise.Reverse(0.3)),
    "optimal": noise.LinearTransform(noise.Optimal()),
    "erase": noise.Erase(0.5),
    "beyond": noise.LinearTransform(noise.CyclicShift(-1.5)),
}


@dataclasses.dataclass(frozen=True)
class MeanImage:
    """A hashable mean image, like that of a data set."""

    level: float

    @property
    def pixels(self):
        return np.full((4, 4, 3), self.level, np.float32)


def draw_images(count=8):
    """uint8 images with many pixels at both ends of the range."""
    drawn = np.random.default_rng(0).integers(-60, 316, (count, 4, 4, 3))
    return np.clip(drawn, 0, 255).astype(np.uint8)


class Flat(models.Classifier, kw_only=True):
    """Returns the image after its tap."""

    @property
    def num_layers(self):
        return 1

    def _run(self, x, *, train=False, mask=None, noise_strength=None, index=None, **_):
        options = {"mask": mask, "strength": noise_strength, "index": index}
        taps = noise.open_taps(self, self.injection, num_layers=1, train=train, **options)
        return taps(x, point="image"), {}


def noisy_images(injection, x, *, key=0, **options):
    rngs = {"noise": jax.random.key(key)}
    return Flat(injection=injection).apply({}, x, train=True, rngs=rngs, **options)


def at_image(kind, pixels=SCALE, **options):
    return noise.Injection(NOISES[kind], point="image", pixels=pixels, **options)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("scale", [SCALE, noise.PixelScale(MeanImage(0.3), (1.0,))])
def test_noise_changes_and_clips_pixels_before_normalisation(kind, scale):
    pixels = jnp.asarray(draw_images(), jnp.float32) / 255
    got = noisy_images(at_image(kind, scale), scale.normalise(pixels))
    # A tap's key is that of the model's stream, folded with the layer's number, 0.
    key = jax.random.fold_in(Flat().apply({}, method=noise_key, rngs={"noise": KEY}), 0)
    noisy = np.asarray(NOISES[kind](key, pixels))
    if kind in ("gaussian", "beyond"):
        assert noisy.min() < -0.05
        assert noisy.max() > 1.05
    mean = scale.mean if isinstance(scale.mean, tuple) else scale.mean.pixels
    expected = (np.clip(noisy, 0, 1) - np.float32(mean)) / np.float32(scale.std)
    np.testing.assert_allclose(got, expected, atol=3e-6)


KEY = jax.random.key(0)


def noise_key(model):
    return model.make_rng("noise")


@pytest.mark.parametrize("kind", ["gaussian", "salt_and_pepper", "cyclic_shift"])
def test_where_the_noise_changes_nothing_the_image_is_bitwise_the_same(kind):
    x = SCALE.normalise(jnp.asarray(draw_images(), jnp.float32) / 255)
    np.testing.assert_array_equal(noisy_images(at_image(kind), x, noise_strength=0.0), x)
    mask = jnp.arange(8) < 5
    got = noisy_images(at_image(kind), x, mask=mask)
    np.testing.assert_array_equal(got[5:], x[5:])
    assert not np.array_equal(got[:5], x[:5])


def test_padding_does_not_change_what_the_others_receive():
    x = SCALE.normalise(jnp.asarray(draw_images(), jnp.float32) / 255)
    padded = jnp.where((jnp.arange(8) < 5)[:, None, None, None], x, jnp.nan)
    for kind in ("gaussian", "salt_and_pepper", "cyclic_shift", "optimal"):
        got = noisy_images(at_image(kind), padded, mask=jnp.arange(8) < 5)
        np.testing.assert_allclose(got[:5], noisy_images(at_image(kind), x[:5]), atol=3e-6)


def test_the_gradient_passes_where_nothing_is_clipped_and_not_elsewhere():
    """Also at pixels that lie on a limit, such as the background of a digit."""
    pixels = jnp.asarray([0.0, 0.0, 0.5, 1.0, 1.0])[None, :, None, None]
    shift = jnp.asarray([0.1, -0.1, 0.1, 0.1, -0.1])[None, :, None, None]
    scale = noise.PixelScale((0.5,), (0.5,))

    def noisy(x):
        before = scale.to_pixels(x)
        return scale.add(x, before, before + shift).sum()

    gradient = jax.grad(noisy)(scale.normalise(pixels))
    np.testing.assert_allclose(gradient.ravel(), [1, 0, 1, 0, 1], atol=1e-6)


def test_stop_gradient_and_half_precision():
    x = SCALE.normalise(jnp.asarray(draw_images(), jnp.float32) / 255)
    stopped = at_image("gaussian", stop_gradient=True)
    gradient = jax.grad(lambda x: noisy_images(stopped, x).sum())(x)
    np.testing.assert_array_equal(gradient, np.ones_like(x))
    assert noisy_images(at_image("gaussian"), x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_pixels_need_the_image_and_a_valid_scale():
    with pytest.raises(ValueError, match=r"pixels=.*point='block_input': only images have pixels"):
        noise.Injection(noise.Gaussian(), pixels=SCALE)
    with pytest.raises(ValueError, match=r"std=\(0\.0,\): pixels range"):
        noise.PixelScale((0.5,), (0.0,))
    with pytest.raises(ValueError, match="mean=nan: give a finite number"):
        noise.PixelScale((float("nan"),))


def test_only_injections_at_the_image_get_pixels():
    first, second = (
        noise.Injection(noise.Gaussian()),
        noise.Injection(NOISES["erase"], point="image"),
    )
    assert noise.in_pixels((first, second), SCALE) == (
        first,
        dataclasses.replace(second, pixels=SCALE),
    )
    assert noise.in_pixels(None, SCALE) == ()


@pytest.mark.parametrize(("mean", "std"), [((123.0,), (0.5,)), ((0.5,), (58.0,)), ((0.5,), (0.0,))])
def test_statistics_of_pixels_beyond_0_to_1_are_refused(mean, std):
    with pytest.raises(ValueError, match="pixels range from 0 to 1"):
        noise.PixelScale(mean, std)
