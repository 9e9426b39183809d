"""Translates a config.json of Hugging Face's transformers to the fields of timm's config.json."""

import re
from collections.abc import Mapping
from typing import Any

_ACTIVATIONS = {  # transformers' name: timm's `act_layer`
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_ARGUMENTS = {  # transformers' field: timm's argument
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
_PLACEHOLDER = re.compile(r"LABEL_[0-9]+")  # transformers' name for a class without one
_USE_CLASS_TOKEN = ("vit", "deit")  # model types whose classifiers read only the class token


def to_timm_fields(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Translates the fields to timm's; a config.json of another program is returned unchanged.

    "model_type" becomes the architecture, such as "vit (transformers)".
    """
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or isinstance(fields.get("architecture"), str):
        return fields  # timm's own, which transformers calls "timm_wrapper"
    arguments = {timm: fields[name] for name, timm in _ARGUMENTS.items() if name in fields}
    if model_type == "resnet":  # its hidden sizes are lists, one per stage
        arguments = {"layers": arguments["depths"]} if "depths" in arguments else {}
        if fields.get("downsample_in_bottleneck"):
            arguments["downsample_in_bottleneck"] = True
    activation = fields.get("hidden_act")
    if activation is not None:
        arguments["act_layer"] = _ACTIVATIONS.get(str(activation), activation)
    labels = fields.get("id2label")
    pooling = {"global_pool": "token"} if model_type in _USE_CLASS_TOKEN else {}
    return pooling | {
        "architecture": f"{model_type} (transformers)",
        "model_args": arguments,
        "label_names": _label_names(labels),
        "num_classes": len(labels) if isinstance(labels, dict) else fields.get("num_labels"),
    }


def _label_names(labels: Any) -> list[str] | None:
    """Turns "id2label", {"0": "cat", …}, into a list.

    Returns None if a class has no name, or if all names are placeholders.
    """
    if not isinstance(labels, Mapping):
        return None
    names = [labels.get(str(number)) for number in range(len(labels))]
    texts = [name for name in names if isinstance(name, str)]
    if len(texts) < len(names):
        return None
    return None if all(_PLACEHOLDER.fullmatch(text) for text in texts) else texts
