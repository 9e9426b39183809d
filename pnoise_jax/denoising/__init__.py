"""Denoising autoencoders for any model, and anomaly scores from their reconstruction errors."""

from pnoise_jax.denoising.anomaly import (
    RocCurve,
    nearest_distances,
    roc_curve,
    score_anomalies,
)
from pnoise_jax.denoising.decoder import Decoder, with_decoder
from pnoise_jax.denoising.errors import psnr, reconstruction_errors
from pnoise_jax.denoising.held_out import require_unseen_by_weights, require_unseen_images
from pnoise_jax.denoising.task import Denoising

__all__ = [
    "Decoder",
    "Denoising",
    "RocCurve",
    "nearest_distances",
    "psnr",
    "reconstruction_errors",
    "require_unseen_by_weights",
    "require_unseen_images",
    "roc_curve",
    "score_anomalies",
    "with_decoder",
]
