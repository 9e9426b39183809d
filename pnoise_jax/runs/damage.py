"""Explains in a sentence why a checkpoint cannot be read."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pnoise_jax.runs.layout import is_in_bucket

_FILE = re.compile(r'local file "([^"]+)"')
_PART = re.compile(r'Error reading "([^"]+)/([\d.]+)" in OCDBT database at local file "([^"]+)"')
_DETAILS = re.compile(r" \[tensorstore_spec.*|\.? See full TensorStore details:.*")  # long
_MANIFEST = Path("state", "manifest.ocdbt")  # lists all other files of the arrays


def describe_damage(checkpoint: Path, error: Exception) -> str:
    """Names the missing file if the error does, or the part of an array that cannot be read.

    Orbax treats a missing file of a shard like an empty one.

    Args:
      checkpoint: the checkpoint's directory.
      error: the error from reading it.
    """
    texts = [str(each).strip() or repr(each) for each in _causes(error)]
    first = _DETAILS.sub("", texts[0].splitlines()[0])
    if is_in_bucket(checkpoint):
        missing = not (checkpoint / _MANIFEST).is_file()
        return f"its file {_MANIFEST} is missing" if missing else first
    checkpoint = Path(os.path.normpath(checkpoint))  # as TensorStore names it
    named = [Path(name) for text in texts for name in _FILE.findall(text)]
    for file in (*named, checkpoint / _MANIFEST):
        if not file.exists() and file.is_relative_to(checkpoint):
            return f"its file {file.relative_to(checkpoint)} is missing"
    for name, part, place in (match.groups() for text in texts for match in _PART.finditer(text)):
        if Path(place).is_relative_to(checkpoint):
            place = f"{Path(place).relative_to(checkpoint)}/"
        return f"shard {part} of {name} cannot be read: a file in {place} is missing or damaged"
    return first


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
