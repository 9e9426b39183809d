"""Sweeps: the same training over a grid of settings and seeds, and what their results say."""

from pnoise_jax.studies.sweep.cells import product
from pnoise_jax.studies.sweep.shards import Shard
from pnoise_jax.studies.sweep.sweep import WAYS, run_sweep

__all__ = [
    "WAYS",
    "Shard",
    "product",
    "run_sweep",
]
