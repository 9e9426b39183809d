"""Pretrained weights: found in a file, matched with a model, read array by array.

    weights = match("vit_b_16.safetensors", model, shapes)    # names and shapes alone
    print(weights.describe())
    for path, array in weights.read(): ...                    # "params/block_1/attn/qkv/kernel"

`files` and `runs` know formats; `torch_names` and `google_names` know names; `matching` joins them.
"""

from pnoise_jax.weights.matching import HEADS, Weights, match

__all__ = ["HEADS", "Weights", "match"]
