"""Reads JSON that other programs wrote, which may contain anything or be invalid."""

import json
from pathlib import Path
from typing import Any

from pnoise_jax.weights.formats.regular_file import read_optional

MAX_BYTES = 2**24  # per JSON file: the index of a model with many shards has a few megabytes


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} if there is none.

    Raises:
      ValueError: the path is a pipe, a device or a directory, or the file is too large.
    """
    content = read_optional(path, limit=MAX_BYTES)
    return {} if content is None else parse_object(content)


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object in a text; {} if the text is not a JSON object."""
    value = _parse(text)
    return value if isinstance(value, dict) else {}


def parse_list(text: str) -> list[Any] | None:
    """The JSON list in a text; None if the text is not a JSON list."""
    value = _parse(text)
    return value if isinstance(value, list) else None


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
