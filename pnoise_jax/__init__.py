"""Positive noise in JAX and Flax: noise in the latent representations of ViTs and CNNs.

`pnoise_jax.noise` contains the noises and injects them into any model, `pnoise_jax.studies` audits
where an accuracy comes from, and `pnoise_jax.models`, `weights`, `data`, `training` and
`evaluation` train and evaluate image classifiers with noise. Nothing is imported until you import
it::

    from pnoise_jax import noise, studies

The method is from *Explore Positive Noise in Deep Learning* (later *NoisyNN*, arXiv 2309.10625).
"""

__version__ = "0.1.0"
