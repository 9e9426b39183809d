"""Denoising autoencoders, on any model; and anomaly scores from what they cannot give back."""

from pnoise_jax.denoising.decoder import Decoder, with_decoder
from pnoise_jax.denoising.errors import psnr, reconstruction_errors
from pnoise_jax.denoising.task import Denoising, is_off

__all__ = [
    "Decoder",
    "Denoising",
    "is_off",
    "psnr",
    "reconstruction_errors",
    "with_decoder",
]
