"""Prepares data sets from the files that their owners distribute, without TensorFlow."""

from pnoise_jax.data.prepare.plan import shorten
from pnoise_jax.data.prepare.preparation import Prepared, expand, list_preparable, prepare

__all__ = [
    "Prepared",
    "expand",
    "list_preparable",
    "prepare",
    "shorten",
]
