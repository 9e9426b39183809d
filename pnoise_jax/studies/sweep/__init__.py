"""Sweeps: the same training over a grid of settings and seeds, and what their results say."""

from pnoise_jax.studies.sweep.cells import product
from pnoise_jax.studies.sweep.sweep import run_sweep

__all__ = ["product", "run_sweep"]
