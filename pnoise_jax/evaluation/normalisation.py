"""Images as models take them: pixels, minus their mean, divided by their deviation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data
from pnoise_jax.data.image import require_statistics


def static_mean(mean: Sequence[float] | data.PixelMean) -> data.PixelMean:
    """A mean that can be static to jit: numbers per channel as a tuple, a mean image as it is."""
    return mean if isinstance(mean, data.MeanImage) else tuple(mean)


def normalise(
    images: jax.Array | np.ndarray,
    mean: data.PixelMean,
    std: tuple[float, ...],
) -> jax.Array:
    """uint8 images (..., channels) to float32 ``(image / 255 - mean) / std``.

    A mean image is subtracted pixel by pixel, and nothing is divided by.

    Raises:
      ValueError: mean or std are not for pixels in [0, 1], but for pixels up to 255, for instance.
    """
    if isinstance(mean, data.MeanImage):
        return mean.subtract(images)
    require_statistics(prefix="", mean=mean, std=std)
    centred = jnp.asarray(images).astype(jnp.float32) / 255 - jnp.array(mean, jnp.float32)
    return centred / jnp.array(std, jnp.float32)
