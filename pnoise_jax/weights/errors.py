"""Errors about weights: they start with the path and distinguish bad files from machine faults."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pnoise_jax.registry import similar
from pnoise_jax.terminal import printable

# Reading a damaged archive can seek to impossible positions; a damaged checkpoint can lack files.
_CAUSED_BY_FILE = (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_MAX_NAME = 120  # characters of a name to show
_GET_AGAIN = "download or copy it again, it is damaged or incomplete"


def weights_field(path: str | os.PathLike) -> str:
    """How errors begin: the config field and its value."""
    return f"weights={str(path)!r}"


def printable_name(name: str) -> str:
    """A name from a file for use in a message: printable, cut after 120 characters."""
    text = printable(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…")
    return text if len(name) <= _MAX_NAME else f"{text} ({len(name)} characters)"


@contextlib.contextmanager
def naming_path(prefix: str, path: Path) -> Iterator[None]:
    """Puts a prefix that names a path, such as "weights='…'", in front of errors.

    Raises:
      FileNotFoundError, OSError, ValueError: if the code inside does.
    """
    try:
        yield
    except FileNotFoundError as error:
        text = f"{prefix} does not exist{printable(_suggest_neighbours(path))}"
        raise FileNotFoundError(text) from error
    except ValueError as error:
        raise ValueError(f"{prefix} {printable(str(error), multiline=True)}") from error
    except OSError as error:
        raise unreadable_error(prefix, error) from error


def unreadable_error(prefix: str, error: OSError) -> OSError:
    """The error for a file that cannot be read now, though it may be intact."""
    fix = (
        "make it readable"
        if isinstance(error, PermissionError)
        else "the fault is the machine's, not the file's; fix the cause and start again"
    )
    return OSError(f"{prefix} cannot be read ({error.strerror or error}): {fix}")


def _suggest_neighbours(path: Path) -> str:
    """Lists similar names, or a few others, in the directory of a missing file."""
    try:
        names = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return f": there is no directory {path.parent}"
    near = similar(path.name, names) or names[:3]
    return f": {path.parent} has {', '.join(near) or 'no files'}"


@contextlib.contextmanager
def naming_damage(what: str, *, fix: str = _GET_AGAIN) -> Iterator[None]:
    """Turns any error that a library raises into "what (why): fix".

    A base class would not do: each decompressor has its own errors.

    Raises:
      ValueError: the file is damaged.
      OSError, MemoryError: the machine failed, not the file.
    """
    try:
        yield
    except Exception as error:
        replacement = damage_error(what, error, fix=fix)
        raise replacement from (None if replacement is error else error)


def damage_error(what: str, error: Exception, *, fix: str = _GET_AGAIN) -> Exception:
    """The error that `naming_damage` raises instead of another."""
    if isinstance(error, MemoryError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if number is None:  # safetensors and TensorStore only mention it in the text
        in_text = re.search(r"\bos error (\d+)", str(error), re.IGNORECASE)
        number = int(in_text[1]) if in_text else None
    if number is not None and number not in _CAUSED_BY_FILE:
        return OSError(number, os.strerror(number))
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return ValueError(f"{what} ({reason}): {fix}")
