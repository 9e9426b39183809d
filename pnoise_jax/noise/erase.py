"""Erasing a representation: not noise, but a control that shows how much depends on a site."""

import dataclasses

import jax
import numpy as np

from pnoise_jax.noise import checks
from pnoise_jax.noise.base import Noise


@dataclasses.dataclass(frozen=True)
class Erase(Noise):
    """``X - strength * X``: zeros at strength 1. It draws nothing and mixes nothing.

    If a noise is suspected of leaking labels, erasing the same site shows how much the decision
    depends on it: the accuracy lost is what the noise can act on.

    Attributes:
      strength: the share of x that is removed; 0 leaves x unchanged.
    """

    strength: float = 1.0

    draws = False

    def __post_init__(self):
        checks.require_finite("strength", self.strength)

    def noisy(self, key, x, *, mask, strength, index) -> jax.Array:
        """Scales x by 1 - strength."""
        del key, mask, index
        return (1 - strength) * x.astype(np.promote_types(x.dtype, np.float32))
