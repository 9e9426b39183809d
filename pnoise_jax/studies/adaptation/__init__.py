"""The domain adaptation study: what each method gains, and what noise adds to it."""

from pnoise_jax.studies.adaptation.methods import METHODS, Method
from pnoise_jax.studies.adaptation.neighbours import (
    BATCH_SIZES,
    Neighbours,
    known_orders,
    neighbours,
    read_list,
)
from pnoise_jax.studies.adaptation.pairs import run_pairs
from pnoise_jax.studies.adaptation.study import run_adaptation
from pnoise_jax.studies.adaptation.summary import METRICS

__all__ = [
    "BATCH_SIZES",
    "METHODS",
    "METRICS",
    "Method",
    "Neighbours",
    "known_orders",
    "neighbours",
    "read_list",
    "run_adaptation",
    "run_pairs",
]
