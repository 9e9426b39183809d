"""Files that can be read: no pipes, sockets or devices, which may hang or never end."""

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
    """Checks that a path is that of a regular file, before anything opens it.

    Raises:
      ValueError: it is something else, which the message names.
      OSError: it is not there, or it cannot be asked for.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise ValueError(f"is {kind}, not a file: give the path of a regular file")


def read_beside(path: Path, *, limit: int) -> bytes | None:
    """The bytes of a small file that need not be there; None where it is not, or not readable.

    Args:
      path: of the file.
      limit: how many bytes it may have.

    Raises:
      ValueError: it is no regular file, or larger.
    """
    try:
        require_regular(path)
        size = path.stat().st_size
        if size > limit:
            raise ValueError(f"has {size} bytes, and at most {limit} are read of such a file")
        return path.read_bytes()
    except OSError:
        return None
    except ValueError as error:
        raise ValueError(f"cannot be used with {path.name} beside it, which {error}") from None
