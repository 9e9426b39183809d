"""Load pretrained weights from a file, match them with a model, and export them.

    variables = load("vit_b_16.safetensors", model)           # for model.apply
    weights = match("vit_b_16.safetensors", model, shapes)    # opens the file; reads no array
    print(weights.describe())
    for path, array in weights.read(): ...                    # "params/block_1/attn/qkv/kernel"

`formats` detects the format of a file, `names` translates the array names of each source to ours,
and `adapt` resizes and reorders the arrays that may differ between file and model. `matching`
combines them: `entries` describes how each of our arrays is made from the file's arrays,
`model_properties` covers the properties that no array shows, and `preprocessing` says which images
the weights expect. If the weights do not fit, `mismatches` and `likely_model` explain why. `export`
goes the other way.
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
