"""Normalises images for models: subtracts the mean of pixels and divides by their deviation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data
from pnoise_jax.data.image import require_statistics


def static_mean(mean: Sequence[float] | data.PixelMean) -> data.PixelMean:
    """Makes a mean hashable for jit: numbers per channel become a tuple; a mean image is one."""
    return mean if isinstance(mean, data.MeanImage) else tuple(mean)


def normalise(
    images: jax.Array | np.ndarray,
    mean: data.PixelMean,
    std: tuple[float, ...],
) -> jax.Array:
    """Converts uint8 images (..., channels) to float32 ``(image / 255 - mean) / std``.

    A mean image is subtracted pixel by pixel instead, without a division.

    Raises:
      ValueError: mean or std are not for pixels in [0, 1] but, for instance, for pixels up to 255.
    """
    if isinstance(mean, data.MeanImage):
        return mean.subtract(images)
    require_statistics(prefix="", mean=mean, std=std)
    centred = jnp.asarray(images).astype(jnp.float32) / 255 - jnp.array(mean, jnp.float32)
    return centred / jnp.array(std, jnp.float32)
