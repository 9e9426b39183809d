"""What a file of weights, or config.json beside it, says of its model, in our words or timm's."""

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnoise_jax import models
from pnoise_jax.weights import timm_models

# What says it, and what it says, as timm's config.json does: "architecture", "global_pool",
# "model_args", "pretrained_cfg"; and our own options as "options".
Statement = tuple[str, Mapping[str, Any]]

CLASS_NAMES = "label_names"  # of the head, by label: a list, as timm's config.json has it
PREPROCESSING = "pretrained_cfg"  # of a safetensors file, as JSON; in config.json, a section
_POOLING = {"token": "token", "avg": "mean"}
# timm's models that have the arrays of ours, and are another function (of timm 1.0.31, all).
_ARCHITECTURES = {
    r"resnetaa": "averages where it strides",
    r"resnetblur": "blurs where it strides",
    r"vit_(base_patch32_siglip_gap_256|large_patch16_siglip_gap_512)": "has a GELU by tanh",
    r"vit_(so400m|giantopt)_patch16_siglip_gap": "has a GELU by tanh",
    r"swin_s3_": "has windows of another size in each stage",
}
_ARGUMENTS = {  # of timm's, that no array shows, and the values that are ours
    "aa_layer": (),
    "output_stride": (32,),
}


def json_object(text: str | bytes) -> dict[str, Any]:
    """An object that is JSON; {} where it is none."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is none."""
    try:
        return json_object(path.read_bytes())
    except OSError:
        return {}


def json_list(text: str) -> list[Any] | None:
    """A list that is JSON; None where it is none."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) else None


def class_names(statements: tuple[Statement, ...]) -> tuple[str, ...] | None:
    """The classes of the head by label, from the nearest that names them; None where none does."""
    for _, said in statements:
        names = said.get(CLASS_NAMES)
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def statements_on(path: Path, metadata: Mapping[str, str]) -> tuple[Statement, ...]:
    """What is said of a safetensors file, the nearest first.

    Args:
      path: of the file, beside which config.json may lie, as on timm's hub.
      metadata: the texts that it has beside its arrays; those of `launch.export` say all.
    """
    texts = {name: json_object(text) for name, text in metadata.items()}
    own = {
        "architecture": metadata.get("timm.model"),
        "model_args": texts.get("timm.arguments"),
        PREPROCESSING: texts.get(PREPROCESSING),
        "options": texts.get("pnoise_jax.model"),
        CLASS_NAMES: json_list(metadata.get(CLASS_NAMES, "")),
    }
    beside = path.parent / "config.json"
    return ("the file's metadata", own), (f"{beside.name} beside the file", read_json(beside))


def architecture(statements: tuple[Statement, ...]) -> str:
    """timm's name of the model; "" where nothing says it.

    Raises:
      ValueError: it is known to be another function than the models here with the same arrays.
    """
    source, said = _nearest(statements)
    name = said.get("architecture")
    name = name if isinstance(name, str) else ""
    other = next((why for stem, why in _ARCHITECTURES.items() if re.match(stem, name)), None)
    for argument, ours in _ARGUMENTS.items():
        value = _arguments(said).get(argument)
        if value is not None and value not in ours:
            other = other or f"has {argument}={value!r}"
    if other is not None:
        raise _other_function(name, other, source)
    return name


def require_activation(statements: tuple[Statement, ...], ours: str) -> None:
    """Checks the model's activation, as far as it is known.

    Raises:
      ValueError: it is not that of the family here.
    """
    source, said = _nearest(statements)
    value = _arguments(said).get("act_layer")
    if value is not None and value != ours:
        name = said.get("architecture")
        raise _other_function(
            name if isinstance(name, str) else "", f"has act_layer={value!r}", source
        )


def _other_function(name: str, other: str, source: str) -> ValueError:
    return ValueError(
        f"is of timm's {name or 'models'}, which {other}, as {source} says: no model here does, "
        "though arrays have the same names and shapes; take weights of another model, or, where "
        "that is said of another file, keep the two apart"
    )


def options(statements: tuple[Statement, ...]) -> dict[str, Any]:
    """Options of our model, as far as they are known; "pooling" in timm's word if we have none."""
    _, said = _nearest(statements)
    if isinstance(said.get("options"), dict) and said["options"]:
        return said["options"]
    arguments, section = _arguments(said), said.get(PREPROCESSING)
    known = {}
    if pooling := arguments.get("global_pool"):
        known["pooling"] = _POOLING[pooling] if pooling in list(_POOLING) else pooling
    if "num_heads" in arguments:
        heads = arguments["num_heads"]
    else:
        heads = _num_heads(said.get("architecture"))
    if isinstance(heads, int):  # Swin's are as many as stages, and shapes tell them
        known["num_heads"] = heads
    size = section.get("input_size") if isinstance(section, dict) else None
    size = sides(arguments.get("img_size", size[1:] if isinstance(size, list) else None))
    return known | ({} if size is None else {"image_size": size})


def sides(size: Any) -> tuple[int, int] | None:
    """Height and width of images, of which a square has one number; None where it is no size."""
    pair = [size, size] if isinstance(size, int) else size
    if not isinstance(pair, list | tuple) or [type(side) for side in pair] != [int, int]:
        return None
    return tuple(pair)


def _num_heads(architecture: Any) -> int | None:
    """Of a model that timm and we have at one of its sizes; without "…_384" and tags as ".in1k"."""
    if not architecture:  # else all models would be made for nothing
        return None
    name = re.sub(r"_384$", "_224", str(architecture).partition(".")[0])
    return _known_num_heads().get(name)


@functools.cache
def _known_num_heads() -> dict[str, int | None]:
    """By timm's name of each model here."""
    known: dict[str, int | None] = {"vit_base_patch16_gap_224": 16}  # with the shapes of our 12
    for name in models.list_models():
        model = models.create_model(name)
        if reference := timm_models.timm_reference(name, model, channels=3):
            known[reference[0]] = getattr(model, "num_heads", None)
    return known


def _nearest(statements: tuple[Statement, ...]) -> Statement:
    """The first that says which model it is."""
    words = ("options", "architecture", "global_pool", "model_args")
    told = (said for said in statements if any(said[1].get(word) for word in words))
    return next(told, ("", {}))


def _arguments(said: Mapping[str, Any]) -> dict[str, Any]:
    """timm's arguments, its way of pooling among them."""
    given = said.get("model_args")
    pooling = {"global_pool": said["global_pool"]} if said.get("global_pool") else {}
    return pooling | (given if isinstance(given, dict) else {})
