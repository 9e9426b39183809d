"""What a model's noise makes of images before anything else: what a denoising model is given."""

from typing import Any

import flax.linen as nn
import jax

from pnoise_jax import noise


class Corruption(nn.Module, kw_only=True):
    """Returns images with a model's noise at the point "image", bitwise what the model is given.

    Attributes:
      num_layers, points: of the model; its other injections are checked by them.
      injection: of the model, all of them: those in the latent do nothing here.
    """

    num_layers: int
    points: tuple[str, ...]
    injection: Any = None

    @classmethod
    def of(cls, model: Any) -> "Corruption":
        """That of a `models.Classifier`."""
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
        """As `Classifier.__call__`, but the images, normalised like those that it takes."""
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
