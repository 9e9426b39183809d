"""Conversion between images normalised for a model and their pixels in [0, 1]."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pnoise_jax.noise import checks


class MeanOfPixels(Protocol):
    """A mean image, which is subtracted pixel by pixel. It must be hashable."""

    @property
    def pixels(self) -> np.ndarray:
        """(height, width, channels) float32, in [0, 1]."""
        ...


@dataclasses.dataclass(frozen=True)
class PixelScale:
    """How images were normalised: ``x = (pixel - mean) / std``, with pixels in [0, 1].

    Attributes:
      mean: one number per channel or one for all, in [0, 1]; or a mean image.
      std: one number per channel or one for all, in (0, 1].
    """

    mean: tuple[float, ...] | MeanOfPixels = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def __post_init__(self):
        if isinstance(self.mean, list):
            object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        for value in self.mean if isinstance(self.mean, tuple) else ():
            checks.require_finite("mean", value)
            if not 0 <= value <= 1:
                raise ValueError(
                    f"mean={self.mean!r}: pixels range from 0 to 1, and so does their mean; divide "
                    "statistics of values from 0 to 255 by 255"
                )
        for value in self.std:
            checks.require_finite("std", value)
            if not 0 < value <= 1:
                raise ValueError(
                    f"std={self.std!r}: pixels range from 0 to 1, so give numbers in (0, 1]; "
                    "divide statistics of values from 0 to 255 by 255"
                )

    def to_pixels(self, x: jax.Array) -> jax.Array:
        """Converts normalised images (batch, height, width, channels) to pixels in [0, 1].

        The result is at least float32.
        """
        dtype = np.promote_types(x.dtype, np.float32)
        return x.astype(dtype) * self._std(dtype) + self._mean(dtype)

    def normalise(self, pixels: jax.Array) -> jax.Array:
        """Converts pixels in [0, 1] to normalised images; the inverse of `to_pixels`."""
        return (pixels - self._mean(pixels.dtype)) / self._std(pixels.dtype)

    def add(self, x: jax.Array, pixels: jax.Array, noisy: jax.Array) -> jax.Array:
        """Returns normalised images with the noisy pixels, clipped to [0, 1].

        Pixels that the noise does not change stay bitwise the same.

        Args:
          x: normalised images, (batch, height, width, channels).
          pixels: their pixels, as `to_pixels` returns them.
          noisy: the pixels with noise.

        Returns:
          An array with the shape and dtype of x.
        """
        # Rounding may put a pixel of 1 above 1. Then the limit is the pixel's own value.
        low = lax.stop_gradient(jnp.minimum(pixels, 0))
        high = lax.stop_gradient(jnp.maximum(pixels, 1))
        # Not jnp.clip, which halves the gradient of a pixel that lies on a limit.
        noisy = jnp.where(noisy < low, low, jnp.where(noisy > high, high, noisy))
        change = (noisy - pixels) / self._std(pixels.dtype)
        return (x.astype(change.dtype) + change).astype(x.dtype)

    def _mean(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        mean = self.mean if isinstance(self.mean, tuple) else self.mean.pixels
        return jnp.asarray(mean, dtype)

    def _std(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        return jnp.asarray(self.std, dtype)
