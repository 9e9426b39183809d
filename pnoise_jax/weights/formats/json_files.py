"""JSON that other programs wrote: anything may be in it, or nothing."""

import json
from pathlib import Path
from typing import Any

from pnoise_jax.weights.formats.regular_file import read_optional

MAX_BYTES = 2**24  # of a JSON file: the index of a model in many shards has some megabytes


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is none.

    Raises:
      ValueError: the path leads to a pipe, a device or a directory, or to a file that is too large.
    """
    content = read_optional(path, limit=MAX_BYTES)
    return {} if content is None else parse_object(content)


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object in a text; {} where it is not one."""
    value = _parse(text)
    return value if isinstance(value, dict) else {}


def parse_list(text: str) -> list[Any] | None:
    """The JSON list in a text; None where it is not one."""
    value = _parse(text)
    return value if isinstance(value, list) else None


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
