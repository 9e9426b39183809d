"""The noisy images that a denoising model sees."""

from typing import Any

import flax.linen as nn
import jax

from pnoise_jax import noise


class Corruption(nn.Module, kw_only=True):
    """Adds a model's noise at the point "image"; the result is bitwise what the model sees.

    Attributes:
      num_layers, points: of the model; used to check its other injections.
      injection: all injections of the model; injections in the latent do nothing here.
    """

    num_layers: int
    points: tuple[str, ...]
    injection: Any = None

    @classmethod
    def of(cls, model: Any) -> "Corruption":
        """Creates the corruption that a `models.Classifier` applies to its images."""
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
        """Like `Classifier.__call__`, but returns the noisy images, normalised like its input."""
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
