"""Differences between decoded pixels and the clean image."""

from typing import Any

import jax
import jax.numpy as jnp


def reconstruction_errors(decoded: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the mean squared error of each image, (batch,), for pixels on a scale from 0 to 1.

    Args:
      decoded: (batch, height, width, channels), pixels on that scale; they are not clipped.
      images: the clean images, uint8, of the same shape.
    """
    pixels = images.astype(jnp.float32) / 255
    return jnp.square(decoded - pixels).mean(axis=(1, 2, 3))


def psnr(mse: Any) -> jax.Array:
    """Returns the peak signal-to-noise ratio in dB, ``-10 log10(mse)``, for pixels from 0 to 1."""
    return -10 * jnp.log10(mse)
