"""A config.json of Hugging Face's transformers, as timm would say it."""

import re
from collections.abc import Mapping
from typing import Any

_ACTIVATIONS = {  # theirs, as timm's `act_layer`
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_ARGUMENTS = {  # theirs, as timm's
    "num_attention_heads": "num_heads",
    "hidden_size": "embed_dim",
    "embed_dim": "embed_dim",
    "num_hidden_layers": "depth",
    "depths": "depths",
    "patch_size": "patch_size",
    "image_size": "img_size",
    "window_size": "window_size",
    "layer_norm_eps": "norm_eps",
}
_UNNAMED = re.compile(r"LABEL_[0-9]+")  # what transformers calls classes without names
_BY_CLASS_TOKEN = ("vit", "deit")  # whose classifiers read the class token alone


def in_timms_words(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same as a config.json of timm says it; what is none of theirs stays as it is.

    Their "model_type" becomes the architecture, such as "vit (transformers)".
    """
    kind = said.get("model_type")
    if not isinstance(kind, str) or isinstance(said.get("architecture"), str):
        return said  # timm's own, which transformers call "timm_wrapper"
    given = {timms: said[theirs] for theirs, timms in _ARGUMENTS.items() if theirs in said}
    if kind == "resnet":  # whose hidden sizes are by stage
        given = {"layers": given["depths"]} if "depths" in given else {}
        if said.get("downsample_in_bottleneck"):
            given["downsample_in_bottleneck"] = True
    activation = said.get("hidden_act")
    if activation is not None:
        given["act_layer"] = _ACTIVATIONS.get(str(activation), activation)
    labels = said.get("id2label")
    pooling = {"global_pool": "token"} if kind in _BY_CLASS_TOKEN else {}
    return pooling | {
        "architecture": f"{kind} (transformers)",
        "model_args": given,
        "label_names": _names(labels),
        "num_classes": len(labels) if isinstance(labels, dict) else said.get("num_labels"),
    }


def _names(labels: Any) -> list[str] | None:
    """Their "id2label", {"0": "cat", …}, as a list; None where it names no class, or not all."""
    if not isinstance(labels, Mapping):
        return None
    names = [labels.get(str(number)) for number in range(len(labels))]
    if not all(isinstance(name, str) for name in names):
        return None
    return None if all(map(_UNNAMED.fullmatch, names)) else names
