"""Learning from a few labelled images and many unlabelled ones."""

from pnoise_jax.semi_supervised.consistency import Consistency, divergence

__all__ = ["Consistency", "divergence"]
