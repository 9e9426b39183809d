"""Pretrained weights: found in a file, matched with a model, read array by array; and exported.

    variables = load("vit_b_16.safetensors", model)           # for model.apply
    weights = match("vit_b_16.safetensors", model, shapes)    # names and shapes alone
    print(weights.describe())
    for path, array in weights.read(): ...                    # "params/block_1/attn/qkv/kernel"

`files` and `runs` know formats, and `checksums` whether a run's arrays are whole; `errors` tells
what is damaged from a machine that fails; `torch_names` and `google_names` know names. `matching`
joins them with a model: `fitting` takes head and `positions` to it, `mismatches` says what is
wrong, and `guessing` which model it may be.
`descriptions` knows what a file says of its model, `preprocessing` which images weights expect.
`export` goes the other way.
"""

from pnoise_jax.weights.export import Exported, export, timm_layout, timm_state
from pnoise_jax.weights.files import fingerprint
from pnoise_jax.weights.fitting import HEADS
from pnoise_jax.weights.loading import load
from pnoise_jax.weights.matching import Weights, match
from pnoise_jax.weights.preprocessing import Preprocessing
from pnoise_jax.weights.timm_models import timm_reference

__all__ = [
    "HEADS",
    "Exported",
    "Preprocessing",
    "Weights",
    "export",
    "fingerprint",
    "load",
    "match",
    "timm_layout",
    "timm_reference",
    "timm_state",
]
