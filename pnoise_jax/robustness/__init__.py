"""Noise outside the latent: Gaussian noise on weights, and adversarial attacks on images.

Noise on images is an injection at the point "image"; noise on gradients is a field of the
optimizer.
"""

from pnoise_jax.robustness.attacks import Attack
from pnoise_jax.robustness.losses import BLIND, LOSSES
from pnoise_jax.robustness.perturbed import (
    KINDS,
    PGD_STEPS,
    Perturbation,
    find_zero_gradients,
    predict_perturbed,
    require_single_labels,
)
from pnoise_jax.robustness.task import RobustClassification
from pnoise_jax.robustness.weight_noise import AveragedModel, WeightNoise

__all__ = [
    "BLIND",
    "KINDS",
    "LOSSES",
    "PGD_STEPS",
    "Attack",
    "AveragedModel",
    "Perturbation",
    "RobustClassification",
    "WeightNoise",
    "find_zero_gradients",
    "predict_perturbed",
    "require_single_labels",
]
