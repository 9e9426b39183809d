"""What a file of weights, or config.json beside it, says of its model, in our words or timm's."""

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnoise_jax import models
from pnoise_jax.weights import huggingface, timm_models
from pnoise_jax.weights.errors import shown
from pnoise_jax.weights.regular import read_beside

# What says it, and what it says, as timm's config.json does: "architecture", "global_pool",
# "model_args", "pretrained_cfg"; and our own options as "options".
Statement = tuple[str, Mapping[str, Any]]

CLASS_NAMES = "label_names"  # of the head, by label: a list, as timm's config.json has it
PREPROCESSING = "pretrained_cfg"  # of a safetensors file, as JSON; in config.json, a section
UNREADABLE = "unreadable"  # why nothing is known of what says something
_POOLING = {"token": "token", "avg": "mean"}
_LARGEST = 2**24  # bytes of a JSON file: an index of shards has some megabytes


def json_object(text: str | bytes) -> dict[str, Any]:
    """An object that is JSON; {} where it is none."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is none.

    Raises:
      ValueError: it is a pipe, a device or a directory, or endless.
    """
    content = read_beside(path, limit=_LARGEST)
    return {} if content is None else json_object(content)


def json_list(text: str) -> list[Any] | None:
    """A list that is JSON; None where it is none."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) else None


def class_names(statements: tuple[Statement, ...]) -> tuple[str, ...] | None:
    """The classes of the head by label, from the nearest that names them; None where none does."""
    sections = ((said, said.get(PREPROCESSING)) for _, said in statements)
    for said in (part for pair in sections for part in pair if isinstance(part, Mapping)):
        names = said.get(CLASS_NAMES)
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def statements_on(path: Path, metadata: Mapping[str, str]) -> tuple[Statement, ...]:
    """What is said of a safetensors file, the nearest first.

    Args:
      path: of the file, beside which config.json may lie, as on timm's hub.
      metadata: the texts that it has beside its arrays; those of `launch.export` say all.

    Raises:
      ValueError: config.json is no file.
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
    said = huggingface.in_timms_words(_described_in(beside))
    return ("the file's metadata", own), (f"{beside.name} beside the file", said)


def _described_in(path: Path) -> dict[str, Any]:
    """What config.json says; that it cannot be read, where that is so."""
    content = read_beside(path, limit=_LARGEST)
    if content is None:
        there = os.path.lexists(path)
        return {UNREADABLE: "cannot be read"} if there else {}
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return {UNREADABLE: "is not valid JSON"}
    return parsed if isinstance(parsed, dict) else {UNREADABLE: "holds no JSON object"}


def nearest(statements: tuple[Statement, ...]) -> Statement:
    """The first that says which model it is."""
    words = ("options", "architecture", "global_pool", "model_args")
    told = (said for said in statements if any(said[1].get(word) for word in words))
    return next(told, ("", {}))


def architecture(said: Mapping[str, Any]) -> str:
    """timm's name of the model; "" where it is not said."""
    name = said.get("architecture")
    return name if isinstance(name, str) else ""


def title(statements: tuple[Statement, ...]) -> str:
    """Of the file, for the reader."""
    name = architecture(nearest(statements)[1])
    return f"safetensors, said to be {shown(name)}" if name else "safetensors"


def options(statements: tuple[Statement, ...]) -> dict[str, Any]:
    """Options of our model, as far as they are known; "pooling" in timm's word if we have none."""
    _, said = nearest(statements)
    if isinstance(said.get("options"), dict) and said["options"]:
        return said["options"]
    given, section = arguments(said), said.get(PREPROCESSING)
    known = {}
    if pooling := given.get("global_pool"):
        known["pooling"] = _POOLING[pooling] if pooling in list(_POOLING) else pooling
    if "num_heads" in given:
        heads = given["num_heads"]
    else:
        heads = getattr(known_model(architecture(said)), "num_heads", None)
        if architecture(said).partition(".")[0] == "vit_base_patch16_gap_224":
            heads = 16  # with the shapes of our 12
    if isinstance(heads, float) and heads.is_integer():
        heads = int(heads)
    if isinstance(heads, int):  # Swin's are as many as stages, and shapes tell them
        known["num_heads"] = heads
    size = section.get("input_size") if isinstance(section, dict) else None
    size = sides(given.get("img_size", size[1:] if isinstance(size, list) else None))
    return known | ({} if size is None else {"image_size": size})


def sides(size: Any) -> tuple[int, int] | None:
    """Height and width of images, of which a square has one number; None where it is no size."""
    pair = [size, size] if isinstance(size, int) else size
    if not isinstance(pair, list | tuple) or [type(side) for side in pair] != [int, int]:
        return None
    return tuple(pair)


def known_model(architecture: str) -> Any:
    """Ours that timm calls so, or None; without "…_384" and tags as ".in1k"."""
    if not architecture:  # else all models would be made for nothing
        return None
    name = re.sub(r"_384$", "_224", architecture.partition(".")[0])
    return _known_models().get(name) or _known_models().get(architecture.partition(".")[0])


@functools.cache
def _known_models() -> dict[str, Any]:
    """By timm's name of each model here."""
    known: dict[str, Any] = {}
    for name in models.list_models():
        model = models.create_model(name)
        if reference := timm_models.timm_reference(name, model, channels=3):
            known.setdefault(reference[0], model)
    return known


def arguments(said: Mapping[str, Any]) -> dict[str, Any]:
    """timm's arguments, its way of pooling among them."""
    given = said.get("model_args")
    pooling = {"global_pool": said["global_pool"]} if said.get("global_pool") else {}
    return pooling | (given if isinstance(given, dict) else {})
