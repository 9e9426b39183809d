"""Noise for latent representations: noises, quality matrices, and where they enter a model.

The paper is *Explore Positive Noise in Deep Learning* (later *NoisyNN*, arXiv 2309.10625).
"""

from pnoise_jax.noise import information
from pnoise_jax.noise.base import Noise
from pnoise_jax.noise.chain import Chain
from pnoise_jax.noise.erase import Erase
from pnoise_jax.noise.injecting.config_fields import CONFIG_FIELDS
from pnoise_jax.noise.injecting.inject_nnx import inject_nnx
from pnoise_jax.noise.injecting.injection import (
    NOISES,
    Injection,
    Point,
    register_noise,
    spell_out_retired,
)
from pnoise_jax.noise.injecting.intercept import InjectedModule, Site, list_sites
from pnoise_jax.noise.injecting.presets import PRESETS, RETIRED_PRESETS, require_preset
from pnoise_jax.noise.injecting.several import (
    as_injections,
    in_pixels,
    injections_from_config,
    switch_for_evaluation,
)
from pnoise_jax.noise.injecting.taps import Taps, open_taps
from pnoise_jax.noise.linear_transform import LinearTransform
from pnoise_jax.noise.pixels import PixelScale
from pnoise_jax.noise.quality import CyclicShift, Dense, Optimal, QualityMatrix, Reverse
from pnoise_jax.noise.stochastic import Gaussian, SaltAndPepper, draw_per_example

__all__ = [
    "CONFIG_FIELDS",
    "NOISES",
    "PRESETS",
    "RETIRED_PRESETS",
    "Chain",
    "CyclicShift",
    "Dense",
    "Erase",
    "Gaussian",
    "InjectedModule",
    "Injection",
    "LinearTransform",
    "Noise",
    "Optimal",
    "PixelScale",
    "Point",
    "QualityMatrix",
    "Reverse",
    "SaltAndPepper",
    "Site",
    "Taps",
    "as_injections",
    "draw_per_example",
    "in_pixels",
    "information",
    "inject_nnx",
    "injections_from_config",
    "list_sites",
    "open_taps",
    "register_noise",
    "require_preset",
    "spell_out_retired",
    "switch_for_evaluation",
]
