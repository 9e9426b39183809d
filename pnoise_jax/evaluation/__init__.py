"""Evaluation: protocols, exact counts, and the report that shows them side by side."""

from pnoise_jax.evaluation.evaluate import Predictions, evaluate, normalise, predict
from pnoise_jax.evaluation.protocols import ORDERS, Protocol, standard_protocols
from pnoise_jax.evaluation.report import print_report, write_report

__all__ = [
    "ORDERS",
    "Predictions",
    "Protocol",
    "evaluate",
    "normalise",
    "predict",
    "print_report",
    "standard_protocols",
    "write_report",
]
