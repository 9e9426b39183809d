"""The noisy images that a denoising model sees."""

from typing import Any

import flax.linen as nn
import jax

from pnoise_jax import noise


class Corruption(nn.Module, kw_only=True):
    """Returns images with a model's noise at the point "image", bitwise as the model sees them.

    Attributes:
      num_layers, points: of the model; they serve to check its other injections.
      injection: all the model's injections; those in the latent do nothing here.
    """

    num_layers: int
    points: tuple[str, ...]
    injection: Any = None

    @classmethod
    def of(cls, model: Any) -> "Corruption":
        """The corruption of a `models.Classifier`."""
        return cls(num_layers=model.num_layers, points=model.points, injection=model.injection)

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        noise_strength: Any = None,
        index: jax.Array | None = None,
    ) -> jax.Array:
        """Like `Classifier.__call__`, but returns the images, normalised like its input."""
        taps = noise.open_taps(
            self,
            self.injection,
            num_layers=self.num_layers,
            train=train,
            mask=mask,
            strength=noise_strength,
            index=index,
        )
        return taps(images, point="image")
