"""Guesses which model the weights belong to if they do not fit, or that we do not have it."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from pnoise_jax import models
from pnoise_jax.weights.adapt.head import head_paths
from pnoise_jax.weights.errors import printable_name
from pnoise_jax.weights.formats.array_file import Shape
from pnoise_jax.weights.infer_model import infer_channels, infer_model, infer_options
from pnoise_jax.weights.names import other_families
from pnoise_jax.weights.names.naming import NAMINGS

_LAYER_SCALE = r"/(ls[12]/gamma|gamma_[12])$"
_LAST_NORM = r"^params/fc_norm/"
_REGISTERS = r"^params/reg_token$"
_NORMS_OF_HEADS = r"/(q_norm|k_norm)/"
_ATTENTION_POOLING = r"^params/(attn_pool|MAPHead_0)/"
_FIRST_NORM = r"^params/norm_pre/"
_OF_VITS = (_LAYER_SCALE, _LAST_NORM, _FIRST_NORM, _REGISTERS)
_OWN_PARTS = {  # parts that our families have, by the beginning of their models' names
    "beit": (_LAYER_SCALE, _LAST_NORM),
    "davit": (_LAST_NORM,),
    "maxvit": (_LAST_NORM,),
    "vit_22b": (_NORMS_OF_HEADS, _ATTENTION_POOLING),
    "vit_parallel": (_NORMS_OF_HEADS, _ATTENTION_POOLING),
    "vit": _OF_VITS,
    "deit3": _OF_VITS,
}
_FOREIGN_PARTS = {  # parts that only this family lacks
    "maxvit": {r"^params/norm/": "a norm before the pooling, as timm's own MaxViTs (_rw_) have"},
}
_OTHER_PARTS = {  # parts of ViTs in timm and big_vision, by the paths of their arrays
    _LAYER_SCALE: "layer scale",
    _NORMS_OF_HEADS: "norms of queries and keys",
    _FIRST_NORM: "a norm before its blocks",
    _LAST_NORM: "its last norm after the pooling",
    _REGISTERS: "registers",
    _ATTENTION_POOLING: "attention instead of the pooling",
    r"^params/patch_embed/backbone/": "convolutions instead of the patch embedding",
}
_IN_BLOCK = r"(params|batch_stats)/(block_\d+|stage\d+_block\d+)/"
_ADAPTED = r"params/pos_embed$|.*/relative_position_bias_table$"
_MAX_SHARE = 0.1  # of a file's arrays that its likely model may lack


def describe_likely_model(
    stored: Mapping[str, Shape],
    file_shapes: Mapping[str, Shape],
    unexpected: Mapping[str, str],
    *,
    model_shapes: Mapping[str, Shape],
) -> tuple[str, str]:
    """Two sentences, each "" if it does not apply.

    The first says that we do not have the file's model, the second which model it looks like.

    Args:
      stored: the shapes in the file, by the file's names.
      file_shapes: the shapes in the file, by our paths.
      unexpected: the file's names of the arrays that the model does not have, by our paths, in
        order.
      model_shapes: the shapes in the model, by our paths.
    """
    if family := other_families.recognise(stored):
        return f"These are the weights of {family}: use other weights", ""
    likely = infer_model(file_shapes)
    if parts := _other_parts(unexpected, "" if likely is None else likely[0]):
        return f"The file's model has {parts}: no model here has this, so use other weights", ""
    if likely is None:
        return "", ""
    name, options = likely
    is_this = likely == infer_model(model_shapes)  # then a few arrays may be damaged
    differences = _differences(name, file_shapes)
    if len(differences) > (_MAX_SHARE * len(file_shapes) if is_this else 0):
        return (
            f"No model here has these arrays; {name} is the closest, and {len(differences)} "
            f"differ, such as {printable_name(differences[0])}: use other weights",
            "",
        )
    if is_this:
        return "", ""
    changed = ", ".join(f"{option}={value!r}" for option, value in options.items())
    changed = f" with {changed}" if changed else ""
    return "", f"It looks like {name}{changed}: set config.model to it"


def _other_parts(unexpected: Mapping[str, str], likely: str) -> str:
    """The parts that no model here has, with an array of each; "" if there are none.

    Args:
      unexpected: our paths and the names in the file.
      likely: the name of the likely model, or "".
    """
    parts = {
        part: name
        for pattern, part in (_OTHER_PARTS | _of_family(likely, _FOREIGN_PARTS, {})).items()
        for path, name in reversed(list(unexpected.items()))
        if re.search(pattern, path) and pattern not in _of_family(likely, _OWN_PARTS, ())
    }
    if parts:
        return ", ".join(f"{part} ({printable_name(name)})" for part, name in parts.items())
    for path, name in unexpected.items():
        # A run's arrays have our own names.
        is_named = name == path or any(re.fullmatch(naming.blocks, name) for naming in NAMINGS)
        if re.match(_IN_BLOCK, path) and not is_named:
            return f"arrays such as {printable_name(name)} in its blocks"
    return ""


def _of_family(likely: str, parts: Mapping[str, Any], default: Any) -> Any:
    """The value in `parts` for the beginning of a model's name."""
    return next((value for start, value in parts.items() if likely.startswith(start)), default)


def _differences(name: str, shapes: Mapping[str, Shape]) -> list[str]:
    """The arrays of a file that its likely model lacks or has in other shapes.

    Returns [] if almost all agree. The head is left out because it can be replaced; position
    embeddings and relative positions are left out because they can be resized.
    """
    try:
        expected = _shapes_of(name, infer_options(shapes), channels=infer_channels(shapes) or 3)
    except ValueError:  # it needs options that no shape shows: nothing to compare with
        return []
    heads = head_paths(shapes)
    body = [path for path in shapes if path not in heads and not re.match(_ADAPTED, path)]
    extra = [path for path in body if path not in expected]
    other = [path for path in body if expected.get(path, shapes[path]) != shapes[path]]
    return other + extra if other or len(extra) > _MAX_SHARE * len(body) else []


def _shapes_of(name: str, options: Mapping[str, Any], *, channels: int) -> dict[str, Shape]:
    """The shapes of a model's arrays, for some image size."""
    if "num_heads" in models.default_options(name) and "num_heads" not in options:
        options = {**options, "num_heads": 1}  # any number that divides the width
    model = models.create_model(name, num_classes=1, **options)
    sides = model.image_shape or (64, 64)
    images = jax.ShapeDtypeStruct((1, *sides, channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    flat: Mapping[str, Any] = dict(traverse_util.flatten_dict(dict(variables), sep="/"))
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}
