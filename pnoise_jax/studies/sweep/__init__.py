"""Sweeps: one training repeated over a grid of settings and seeds, and a summary of the results."""

from pnoise_jax.studies.sweep.cells import build_cells, override, product
from pnoise_jax.studies.sweep.shards import Shard
from pnoise_jax.studies.sweep.summary import Group, Mean, mean_of
from pnoise_jax.studies.sweep.sweep import WAYS, run_sweep
from pnoise_jax.studies.sweep.trainer import plan

__all__ = [
    "WAYS",
    "Group",
    "Mean",
    "Shard",
    "build_cells",
    "mean_of",
    "override",
    "plan",
    "product",
    "run_sweep",
]
