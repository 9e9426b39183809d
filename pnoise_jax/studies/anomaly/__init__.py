"""Anomaly detection by reconstruction errors: runs with held-out classes, and their ROC curves."""

from pnoise_jax.studies.anomaly.figure import roc_figure
from pnoise_jax.studies.anomaly.report import content, tables
from pnoise_jax.studies.anomaly.study import Detection, detect, train_held_out

__all__ = ["Detection", "content", "detect", "roc_figure", "tables", "train_held_out"]
