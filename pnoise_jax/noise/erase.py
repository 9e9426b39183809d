"""Erasing a representation: no noise, but the control that shows how much depends on a site."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax.noise import checks, rows


@dataclasses.dataclass(frozen=True)
class Erase:
    """``X - strength * X``: zeros at strength 1. It draws nothing and mixes nothing.

    Where a noise is suspected of leaking labels, erasing the same site shows how much the decision
    reads there: the accuracy lost is what the noise can act on. Called as ``noise(key, x,
    mask=None, strength=None)``; key may be None.

    Attributes:
      strength: the share that is taken away; 0 leaves x as it is.
    """

    strength: float = 1.0

    def __post_init__(self):
        checks.require_finite("strength", self.strength)

    @property
    def draws(self) -> bool:
        """Whether it needs a key."""
        return False

    @property
    def mixes_batch(self) -> bool:
        """Whether a row of the batch depends on others."""
        return False

    def with_strength(self, strength: float) -> "Erase":
        """The same with another strength."""
        return dataclasses.replace(self, strength=strength)

    def __call__(
        self,
        key: jax.Array | None,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        strength: jax.Array | float | None = None,
        index: jax.Array | None = None,
    ) -> jax.Array:
        """Scales x (batch, ...) by 1 - strength; examples that mask (batch,) excludes stay.

        Raises:
          ValueError: x is not a float array, or the mask does not fit the batch.
        """
        del key, index
        checks.require_batch(x, mask)
        strength = self.strength if strength is None else strength
        return rows.place_freely(self._apply)(x, mask, strength)

    def _apply(self, x: jax.Array, mask: jax.Array | None, strength) -> jax.Array:
        compute = np.promote_types(x.dtype, np.float32)
        erased = ((1 - strength) * x.astype(compute)).astype(x.dtype)
        return erased if mask is None else jnp.where(rows.expand(mask, x), erased, x)
