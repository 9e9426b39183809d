"""Pretrained weights: found in a file, matched with a model, read array by array; and exported.

    variables = load("vit_b_16.safetensors", model)           # for model.apply
    weights = match("vit_b_16.safetensors", model, shapes)    # opens the file; reads no array
    print(weights.describe())
    for path, array in weights.read(): ...                    # "params/block_1/attn/qkv/kernel"

`formats` knows what a file is, `names` how a source names its arrays, and `adapt` resizes and
reorders what a model can take differently. `matching` joins them: `entries` says how each of our
arrays is made from the file's, `model_properties` what no array shows, `preprocessing` which images
the weights expect. Where they do not fit, `mismatches` and `likely_model` say why. `export` goes
the other way.
"""

from pnoise_jax.weights.adapt.head import HEADS
from pnoise_jax.weights.export import Exported, export
from pnoise_jax.weights.formats.detect import fingerprint
from pnoise_jax.weights.formats.places import is_remote, resolved_id
from pnoise_jax.weights.loading import load
from pnoise_jax.weights.matching import Weights, match
from pnoise_jax.weights.names.timm_layout import timm_layout, timm_state
from pnoise_jax.weights.names.timm_models import timm_reference
from pnoise_jax.weights.preprocessing import Preprocessing

__all__ = [
    "HEADS",
    "Exported",
    "Preprocessing",
    "Weights",
    "export",
    "fingerprint",
    "is_remote",
    "load",
    "match",
    "resolved_id",
    "timm_layout",
    "timm_reference",
    "timm_state",
]
