"""Robustness curves: accuracy against the strength of noise and attacks on test images."""

from pnoise_jax.studies.robustness.figure import curves_figure
from pnoise_jax.studies.robustness.masking import find_signs
from pnoise_jax.studies.robustness.measuring import STRENGTHS, CurveSettings, Measured, measure
from pnoise_jax.studies.robustness.study import SEEDS, run_curves, run_curves_of
from pnoise_jax.studies.robustness.summary import Point, summarise

__all__ = [
    "SEEDS",
    "STRENGTHS",
    "CurveSettings",
    "Measured",
    "Point",
    "curves_figure",
    "find_signs",
    "measure",
    "run_curves",
    "run_curves_of",
    "summarise",
]
