"""What is wrong with weights: errors that begin with their path, and tell file from machine."""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pnoise_jax.terminal import printable

# An archive that is damaged may be sought in at impossible places, a checkpoint lack parts.
_OF_THE_FILE = (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_LONGEST = 120  # characters of a name that are shown
_AGAIN = "get it again, it was damaged or cut off"


def weights_at(path: str | os.PathLike) -> str:
    """How errors begin."""
    return f"weights={str(path)!r}"


def shown(name: str) -> str:
    """A name from a file, as a message may show it: printable, and not endless."""
    text = printable(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…")
    return text if len(name) <= _LONGEST else f"{text} ({len(name)} characters)"


@contextlib.contextmanager
def begin_with(beginning: str, path: Path) -> Iterator[None]:
    """Puts what names a path, such as "weights='…'", in front of errors.

    Raises:
      FileNotFoundError, OSError, ValueError: as what happens within does.
    """
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{beginning} does not exist{printable(_beside(path))}") from None
    except ValueError as error:
        raise ValueError(f"{beginning} {printable(str(error), multiline=True)}") from None
    except OSError as error:
        raise unreadable(beginning, error) from None


def unreadable(beginning: str, error: OSError) -> OSError:
    """Of a file that may be whole, and cannot be read now."""
    fix = (
        "make it readable"
        if isinstance(error, PermissionError)
        else "this is the machine's fault and not the file's, so mend it there and begin again"
    )
    return OSError(f"{beginning} cannot be read ({error.strerror or error}): {fix}")


def _beside(path: Path) -> str:
    """Says what is in the place of a file that is not there."""
    try:
        names = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return f": there is no directory {path.parent}"
    near = difflib.get_close_matches(path.name, names) or names[:3]
    return f": {path.parent} has {', '.join(near) or 'no files'}"


@contextlib.contextmanager
def found_damaged(what: str, *, fix: str = _AGAIN) -> Iterator[None]:
    """Says what cannot be read, whatever a library raises; each compression has its own errors.

    Raises:
      ValueError: it is damaged: "what (why): fix".
      OSError, MemoryError: not it, but the machine fails.
    """
    try:
        yield
    except Exception as error:
        raise damaged(what, error, fix=fix) from None


def damaged(what: str, error: Exception, *, fix: str = _AGAIN) -> Exception:
    """What `found_damaged` raises for an error."""
    if isinstance(error, MemoryError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if number is None:  # safetensors and TensorStore have it in the text
        said = re.search(r"\bos error (\d+)", str(error), re.IGNORECASE)
        number = int(said[1]) if said else None
    if number is not None and number not in _OF_THE_FILE:
        return OSError(number, os.strerror(number))
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return ValueError(f"{what} ({reason}): {fix}")
