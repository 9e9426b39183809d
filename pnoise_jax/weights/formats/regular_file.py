"""Accepts regular files only: pipes, sockets and devices may block or never end."""

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def require_regular(path: str | os.PathLike) -> None:
    """Checks that a path leads to a regular file, before anything opens it.

    Raises:
      ValueError: it leads to something else, which the message names.
      OSError: there is no such file, or it is not accessible.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
        raise ValueError(f"is {kind}, not a file: give the path of a regular file")


def read_optional(path: Path, *, limit: int) -> bytes | None:
    """The bytes of a small file; None if it is missing or not readable.

    Args:
      path: the path of the file.
      limit: the largest size to read, in bytes.

    Raises:
      ValueError: it is not a regular file, or it is larger than the limit.
    """
    try:
        require_regular(path)
        size = path.stat().st_size
        if size > limit:
            raise ValueError(f"has {size} bytes; at most {limit} are read from such a file")
        return path.read_bytes()
    except OSError:
        return None
    except ValueError as error:
        raise ValueError(f"cannot be used with the {path.name} beside it, which {error}") from error
