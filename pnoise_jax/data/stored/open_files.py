"""Keeps files of records open for reading, no more than the system allows."""

import collections
import contextlib
import errno
import os
import resource
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Handle = TypeVar("Handle")

_OTHER_FILES = 256  # open files reserved for everything other than records
_MACOS_FILES = 10_240  # the actual limit of macOS when it reports that there is none


class OpenFiles:
    """A thread-safe cache of open files, by owner and key; drops the least recently used.

    A dropped file is closed once nothing reads from it any more.
    """

    def __init__(self):
        # Reentrant: the garbage collector may call `forget` while the lock is held.
        self._lock = threading.RLock()
        self._files = collections.OrderedDict[tuple[Hashable, Hashable], Any]()

    def get(self, owner: Hashable, key: Hashable, open_file: Callable[[], Handle]) -> Handle:
        """The open file of an owner, opened by `open_file` if necessary.

        Raises:
          OSError: raised by `open_file`; with advice if too many files are open.
        """
        with self._lock:
            if (owner, key) in self._files:
                self._files.move_to_end((owner, key))
                return self._files[owner, key]
        opened = self.make_room(open_file)  # not under the lock: a disk may be slow
        with self._lock:
            opened = self._files.setdefault((owner, key), opened)
            self._keep(capacity())
        return opened

    def make_room(self, open_file: Callable[[], Handle]) -> Handle:
        """Calls `open_file`; if too many files are open, drops half of the cache and tries again.

        Raises:
          OSError: the second attempt failed, too, or the first one for another reason.
        """
        try:
            return open_file()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
        with self._lock:
            self._keep(len(self._files) // 2)
        try:
            return open_file()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            raise OSError(
                f"{error}; this process may have {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} "
                "files open, and other things than records use them up: raise the limit (ulimit -n)"
            ) from error

    def forget(self, owner: Hashable) -> None:
        """Drops the files of an owner."""
        with self._lock:
            for key in [key for key in self._files if key[0] == owner]:
                del self._files[key]

    def _keep(self, number: int) -> None:
        while len(self._files) > number:
            self._files.popitem(last=False)


SHARED = OpenFiles()  # shared by all data sets, as the limit applies to the whole process


class Descriptor:
    """A file descriptor for reading, closed when the object is garbage-collected."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        with contextlib.suppress(AttributeError):  # os.open failed
            os.close(self.number)


def capacity() -> int:
    """The number of files of records that may be open at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(4, soft // 4, soft - _OTHER_FILES)


def allow(number: int) -> None:
    """Raises this process's limit on open files, if permitted, so `number` files can stay open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + _OTHER_FILES
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return
    limit = hard
    if hard == unlimited:
        limit = _MACOS_FILES if sys.platform == "darwin" else max(needed, 1 << 16)
    if limit > soft:
        with contextlib.suppress(OSError, ValueError):  # not permitted: fewer files stay open
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
