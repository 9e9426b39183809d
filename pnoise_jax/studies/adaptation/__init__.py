"""The study of domain adaptation: what each method gains, and what noise adds to it."""

from pnoise_jax.studies.adaptation.methods import METHODS, Method
from pnoise_jax.studies.adaptation.neighbours import Neighbours, neighbours
from pnoise_jax.studies.adaptation.pairs import run_pairs
from pnoise_jax.studies.adaptation.study import run_adaptation

__all__ = ["METHODS", "Method", "Neighbours", "neighbours", "run_adaptation", "run_pairs"]
