"""Describes errors in config files and in config fields on the command line, and locates them."""

import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pnoise_jax import models, noise, training

_Line = tuple[str | None, int | None]  # a file, and a number in it
_FRAME = re.compile(r'File "(.+?)", line (\d+)')  # in a traceback


def describe(error: Exception, file: str | None) -> str:
    """Describes what went wrong while a config was read or changed, and where.

    Args:
      error: the exception.
      file: the config file; None if the config is a run's.
    """
    frames: list[_Line] = [
        (frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError):
        frames.append((error.filename, error.lineno))
    by_library = bool(frames) and "config_dict" in str(frames[-1][0])
    place = _place(frames, file)
    if by_library and isinstance(error, AttributeError | KeyError):
        unknown = _describe_unknown(error)
        return f"the config file fails: {unknown} ({place})" if place else unknown
    reason = error.msg if isinstance(error, SyntaxError) else _first_line(str(error))
    where = place or file or f"{frames[-1][0]}:{frames[-1][1]}"
    return f"the config file fails: {type(error).__name__}: {reason} ({where})"


def describe_parsing(text: str, file: str) -> str:
    """Like `describe`, for an error that the flags library has turned into a traceback's text."""
    place = _place([(name, int(line)) for name, line in _FRAME.findall(text)], file)
    return f"the config file fails: {text.splitlines()[-1].strip()} ({place or file})"


def _place(frames: Sequence[_Line], file: str | None) -> str:
    """The last of these lines that is in a file in the config file's directory; or ""."""
    if file is None:
        return ""
    folder = Path(file).resolve().parent
    lines = [(name, n) for name, n in frames if name and Path(name).resolve().parent == folder]
    return f"{lines[-1][0]}:{lines[-1][1]}" if lines else ""


def _describe_unknown(error: Exception) -> str:
    text = str(error).replace("\\", "")
    quoted = re.search(r"'(\w+)'", text)
    if quoted is None:
        return f"unknown config field: {text}"
    name = quoted[1]
    typed = (argument.lstrip("-").partition("=")[0] for argument in sys.argv)
    fields = [field for field in typed if field.startswith("config.") and f".{name}" in field]
    field = fields[0].removeprefix("config.") if fields else name
    if why := models.explain_absent_option(name, ()):
        return f"unknown config field {field}; {why}"
    if near := re.search(r'Did you mean "(\w+)"', text):
        return f"unknown config field {field}; did you mean {near[1]}?"
    known = [*training.FIELDS, *(f"noise.{key}" for key in noise.CONFIG_FIELDS)]
    return f"config.{training.unknown_field(field, known)}"


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]
