"""The decoder of a denoising autoencoder: from a model's map of an image back to its pixels."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import models


class Decoder(nn.Module, kw_only=True):
    """Residual convolutions on the map, and one step up to pixels at the end.

    All convolutions work at the resolution of the map. The last layer gives each cell of the map
    the pixels of its patch of the image (sub-pixel convolution,
    https://arxiv.org/abs/1609.05158): nothing is interpolated, and there is no other upsampling.
    If the cells do not divide the image evenly, patches are rounded up, and pixels beyond the lower
    and right edges are cut off.

    Attributes:
      width: features of the convolutions.
      depth: number of residual blocks, each of two 3x3 convolutions; with 0, every cell is decoded
        by itself.
    """

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        """Maps x to pixels, float32, around [0, 1] but not clipped to it.

        Args:
          x: (batch, rows, columns, dim).
          shape: of the images, (height, width, channels).

        Returns:
          (batch, height, width, channels).
        """
        x = nn.Dense(self.width, name="embed")(x.astype(jnp.float32))
        for number in range(1, self.depth + 1):
            x = ResidualConvolutions(name=f"block_{number}")(x)
        height, width, channels = shape
        rows, columns = x.shape[1:3]
        patch = math.ceil(height / rows), math.ceil(width / columns)
        middle = nn.initializers.constant(0.5)  # of the range of pixels
        x = nn.LayerNorm(use_fast_variance=False, name="norm")(x)
        x = nn.Dense(patch[0] * patch[1] * channels, bias_init=middle, name="pixels")(x)
        return arrange_patches(x, patch)[:, :height, :width]


class ResidualConvolutions(nn.Module):
    """x plus two 3x3 convolutions of it, each after a normalisation."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, rows, columns, width) to the same shape."""
        h = x
        for name in ("conv1", "conv2"):
            h = nn.LayerNorm(use_fast_variance=False, name=f"{name}_norm")(h)
            convolve = models.convolve_images
            h = nn.Conv(x.shape[-1], (3, 3), conv_general_dilated=convolve, name=name)(nn.gelu(h))
        return x + h


def arrange_patches(x: jax.Array, patch: tuple[int, int]) -> jax.Array:
    """Puts the patches of a map in their places.

    Args:
      x: (batch, rows, columns, height * width * channels), a patch in each cell, row after row.
      patch: height and width of a patch in pixels.

    Returns:
      (batch, rows * height, columns * width, channels).
    """
    batch, rows, columns, _ = x.shape
    x = x.reshape(batch, rows, columns, *patch, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * patch[0], columns * patch[1], -1)


@dataclasses.dataclass(frozen=True)
class DecoderFactory:
    """Makes the decoder of a model; equal to others with the same settings.

    Attributes:
      width, depth: of `Decoder`.
    """

    width: int
    depth: int

    def __post_init__(self) -> None:
        for name, value, least in (("width", self.width, 1), ("depth", self.depth, 0)):
            if type(value) is not int or value < least:
                raise ValueError(
                    f"decoder_{name}={value!r}: give a whole number of at least {least}"
                )

    def __call__(self, *, name: str) -> Decoder:
        """The decoder as a submodule."""
        return Decoder(width=self.width, depth=self.depth, name=name)


def with_decoder(model: nn.Module, *, width: int, depth: int) -> nn.Module:
    """A classifier with a decoder in place of its head: it returns pixels of the images' shape.

    Args:
      model: one of `models.create_model`.
      width, depth: of `Decoder`.

    Raises:
      ValueError: a width or a depth out of range, or the model is of another kind.
    """
    if not isinstance(model, models.Classifier):
        raise ValueError(
            f"{type(model).__name__} cannot have a decoder: make it a subclass of models.Classifier"
        )
    return model.clone(image_head=DecoderFactory(width, depth))
