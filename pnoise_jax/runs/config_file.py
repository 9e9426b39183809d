"""The config of a run as a JSON file."""

import json
from pathlib import Path
from typing import Any

import ml_collections

from pnoise_jax import writing
from pnoise_jax.runs.layout import is_in_bucket


def write_config(file: Path, config: ml_collections.ConfigDict) -> None:
    """Writes a config as JSON, atomically."""
    writing.replace_file(file, config.to_json_best_effort(indent=2) + "\n")


def read_config(file: Path, *, named: str) -> dict[str, Any]:
    """The content of the file, with lists as tuples; the fields are not checked.

    Args:
      file: the path of the JSON file.
      named: the name of the work directory in error messages, such as ``--workdir='DIR'``.

    Raises:
      FileNotFoundError: there is no such file.
      OSError, ValueError: it cannot be read, or is not valid JSON.
    """
    try:
        if file.exists() and not file.is_file():
            kind = "a directory" if file.is_dir() else "not a regular file"
            raise FileNotFoundError(f"{named} contains no run: {file} is {kind}; move it away")
        return json.loads(file.read_text(), object_hook=_lists_to_tuples)
    except (FileNotFoundError, NotADirectoryError) as error:
        if error.errno is None:
            raise
        raise FileNotFoundError(
            f"{named} contains no run: {file} does not exist; train there first"
        ) from None
    except OSError as error:
        if is_in_bucket(file):  # the errors of buckets name the file and the reason already
            raise
        raise OSError(f"{named}: {file} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}); restore it from a copy") from None


def _lists_to_tuples(section: dict) -> dict:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in section.items()}
