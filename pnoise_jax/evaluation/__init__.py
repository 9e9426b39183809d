"""Evaluation: protocols, exact counts, statistics, and a report that compares protocols."""

from pnoise_jax.evaluation import corruption_error, metrics
from pnoise_jax.evaluation.batch_composition import in_batches, label_bits_per_batch, purity
from pnoise_jax.evaluation.clean_pass import CleanPass, clean_pass
from pnoise_jax.evaluation.correctness import as_single_labels, is_correct
from pnoise_jax.evaluation.evaluate import (
    EXAMPLES_PER_DEVICE,
    Score,
    batch_logits,
    evaluate,
    predict,
    score_examples,
    trace,
)
from pnoise_jax.evaluation.metrics import (
    METRICS,
    Metric,
    balanced_accuracy,
    in_batches_of,
    mean_over_batches,
    metric_named,
    published_meter,
)
from pnoise_jax.evaluation.normalisation import normalise, static_mean
from pnoise_jax.evaluation.outputs import of_classes
from pnoise_jax.evaluation.predictions import (
    Predictions,
    collect,
    fetch_behind,
    log_sum_exp,
    score_logits,
)
from pnoise_jax.evaluation.protocols import ORDERS, Protocol, standard_protocols
from pnoise_jax.evaluation.report import (
    CLASSIFICATION_MEASURES,
    EXPLANATION,
    Measure,
    print_report,
)
from pnoise_jax.evaluation.representations import Representations, first_noisy_layer
from pnoise_jax.evaluation.statistics import (
    Estimate,
    Hits,
    accuracy,
    adjust_p_values,
    balanced,
    degrees_of_freedom,
    difference,
    mean_change,
    proportion,
    student,
)
from pnoise_jax.evaluation.views import MAX_VIEWS

__all__ = [
    "CLASSIFICATION_MEASURES",
    "EXAMPLES_PER_DEVICE",
    "EXPLANATION",
    "MAX_VIEWS",
    "METRICS",
    "ORDERS",
    "CleanPass",
    "Estimate",
    "Hits",
    "Measure",
    "Metric",
    "Predictions",
    "Protocol",
    "Representations",
    "Score",
    "accuracy",
    "adjust_p_values",
    "as_single_labels",
    "balanced",
    "balanced_accuracy",
    "batch_logits",
    "clean_pass",
    "collect",
    "corruption_error",
    "degrees_of_freedom",
    "difference",
    "evaluate",
    "fetch_behind",
    "first_noisy_layer",
    "in_batches",
    "in_batches_of",
    "is_correct",
    "label_bits_per_batch",
    "log_sum_exp",
    "mean_change",
    "mean_over_batches",
    "metric_named",
    "metrics",
    "normalise",
    "of_classes",
    "predict",
    "print_report",
    "proportion",
    "published_meter",
    "purity",
    "score_examples",
    "score_logits",
    "standard_protocols",
    "static_mean",
    "student",
    "trace",
]
