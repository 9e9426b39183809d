"""Evaluation: protocols, exact counts, statistics, and the report that shows them side by side."""

from pnoise_jax.evaluation.clean import CleanPass, clean_pass
from pnoise_jax.evaluation.evaluate import Predictions, evaluate, normalise, predict, score_logits
from pnoise_jax.evaluation.protocols import ORDERS, Protocol, standard_protocols
from pnoise_jax.evaluation.report import print_report, write_report
from pnoise_jax.evaluation.representations import Representations, first_noisy_layer
from pnoise_jax.evaluation.views import MAX_VIEWS

__all__ = [
    "MAX_VIEWS",
    "ORDERS",
    "CleanPass",
    "Predictions",
    "Protocol",
    "Representations",
    "clean_pass",
    "evaluate",
    "first_noisy_layer",
    "normalise",
    "predict",
    "print_report",
    "score_logits",
    "standard_protocols",
    "write_report",
]
