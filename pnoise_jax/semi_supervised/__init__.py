"""Learning from few labels and many images without."""

from pnoise_jax.semi_supervised.consistency import Consistency, divergence

__all__ = ["Consistency", "divergence"]
