"""Reads what the metadata of a file, or the config.json beside it, say about the model."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnoise_jax.weights.formats import transformers_config
from pnoise_jax.weights.formats.json_files import MAX_BYTES, parse_list, parse_object
from pnoise_jax.weights.formats.regular_file import read_optional

CLASS_NAMES = "label_names"  # the classes of the head, by label: a list, as in timm's config.json
PREPROCESSING = "pretrained_cfg"  # JSON in a safetensors file's metadata; a section of config.json
OPTIONS = "pnoise_jax.model"  # the options of our model, as `pnoise export` writes them
_SHOWS_MODEL = ("options", "architecture", "global_pool", "model_args")


@dataclasses.dataclass(frozen=True, eq=False)
class ModelInfo:
    """What one source says about the model of a file.

    Attributes:
      source: the name of the source, for the reader.
      fields: the fields of timm's config.json: "architecture", "global_pool", "model_args",
        "pretrained_cfg", "label_names"; and the options of our model as "options".
      unreadable: why nothing could be read from the source; "" if it could be.
    """

    source: str = ""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unreadable: str = ""

    @property
    def architecture(self) -> str:
        """timm's name of the model; "" if it is missing."""
        name = self.fields.get("architecture")
        return name if isinstance(name, str) else ""

    @property
    def arguments(self) -> dict[str, Any]:
        """timm's arguments of the model, including its `global_pool`."""
        pooling = self.fields.get("global_pool")
        arguments = self.fields.get("model_args")
        return ({"global_pool": pooling} if pooling else {}) | (
            arguments if isinstance(arguments, dict) else {}
        )

    @property
    def options(self) -> dict[str, Any]:
        """All options of our model if `pnoise export` wrote the file; else {}."""
        options = self.fields.get("options")
        return options if isinstance(options, dict) else {}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """timm's section about images; {} if there is none."""
        section = self.fields.get(PREPROCESSING)
        return section if isinstance(section, dict) else {}

    def without_architecture(self) -> "ModelInfo":
        """A copy without the name of the model."""
        return dataclasses.replace(self, fields={**self.fields, "architecture": None})


def read_model_info(path: Path, metadata: Mapping[str, str]) -> tuple[ModelInfo, ...]:
    """The descriptions of a safetensors file, the most specific source first.

    Args:
      path: the path of the file; config.json may be in the same directory, as on timm's hub.
      metadata: the texts stored with the arrays; `pnoise export` stores a complete description.

    Raises:
      ValueError: config.json is not a regular file, or it is too large.
    """
    inside = {
        "architecture": metadata.get("timm.model"),
        "model_args": parse_object(metadata.get("timm.arguments", "")),
        PREPROCESSING: parse_object(metadata.get(PREPROCESSING, "")),
        "options": parse_object(metadata.get(OPTIONS, "")),
        CLASS_NAMES: parse_list(metadata.get(CLASS_NAMES, "")),
    }
    return ModelInfo("the file's metadata", inside), _read_config(path.parent / "config.json")


def _read_config(path: Path) -> ModelInfo:
    source = f"{path.name} beside the file"
    content = read_optional(path, limit=MAX_BYTES)
    if content is None:
        return ModelInfo(source, unreadable="cannot be read" if os.path.lexists(path) else "")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return ModelInfo(source, unreadable="is not valid JSON")
    if not isinstance(fields, dict):
        return ModelInfo(source, unreadable="contains no JSON object")
    return ModelInfo(source, transformers_config.to_timm_fields(fields))


def most_specific(infos: tuple[ModelInfo, ...]) -> ModelInfo:
    """The first description that says which model it is; an empty one if none does."""
    telling = (info for info in infos if any(info.fields.get(name) for name in _SHOWS_MODEL))
    return next(telling, ModelInfo())


def class_names(infos: tuple[ModelInfo, ...]) -> tuple[str, ...] | None:
    """The classes of the head, by label, from the first source that has them; else None."""
    for section in (part for info in infos for part in (info.fields, info.preprocessing)):
        names = section.get(CLASS_NAMES)
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None
