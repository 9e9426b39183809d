"""The decoder of a denoising autoencoder: maps a model's feature map of an image to pixels."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import models


class Decoder(nn.Module, kw_only=True):
    """Applies residual convolutions to a feature map and upsamples it to pixels in the last layer.

    All convolutions work at the resolution of the map. The last layer maps each cell to the pixels
    of its patch of the image (sub-pixel convolution, https://arxiv.org/abs/1609.05158), without
    interpolation or other upsampling. If the cells do not divide the image evenly, the patch size
    is rounded up, and pixels beyond the lower and right edges are cut off.

    Attributes:
      width: number of features of the convolutions.
      depth: number of residual blocks of two 3x3 convolutions; if 0, each cell is decoded
        independently.
    """

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        """Maps x to float32 pixels, on a scale from 0 to 1 but not clipped to it.

        Args:
          x: (batch, rows, columns, dim).
          shape: shape of an image, (height, width, channels).

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
    """Adds to x two successive 3x3 convolutions of it, each after a normalisation."""

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
    """Arranges the patches of a map into an image.

    Args:
      x: (batch, rows, columns, height * width * channels), a flattened patch in each cell.
      patch: height and width of a patch, in pixels.

    Returns:
      (batch, rows * height, columns * width, channels).
    """
    batch, rows, columns, _ = x.shape
    x = x.reshape(batch, rows, columns, *patch, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * patch[0], columns * patch[1], -1)


@dataclasses.dataclass(frozen=True)
class DecoderFactory:
    """Creates the decoder of a model. Instances with the same settings are equal.

    Attributes:
      width, depth: as in `Decoder`.
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
        """Returns the decoder as a submodule."""
        return Decoder(width=self.width, depth=self.depth, name=name)


def with_decoder(model: nn.Module, *, width: int, depth: int) -> nn.Module:
    """Replaces a classifier's head with a decoder, so that it returns pixels in the image's shape.

    Args:
      model: a model from `models.create_model`.
      width, depth: as in `Decoder`.

    Raises:
      ValueError: the width or the depth is out of range, or the model is not a `models.Classifier`.
    """
    if not isinstance(model, models.Classifier):
        raise ValueError(
            f"{type(model).__name__} cannot have a decoder: make it a subclass of models.Classifier"
        )
    return model.clone(image_head=DecoderFactory(width, depth))
