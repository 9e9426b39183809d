"""Anomaly detection by reconstruction errors: runs with held-out classes, and their ROC curves."""

from pnoise_jax.studies.anomaly.figure import roc_figure
from pnoise_jax.studies.anomaly.report import content, require_own, tables, write
from pnoise_jax.studies.anomaly.study import Detection, detect, held_out_runs, train_held_out

__all__ = [
    "Detection",
    "content",
    "detect",
    "held_out_runs",
    "require_own",
    "roc_figure",
    "tables",
    "train_held_out",
    "write",
]
