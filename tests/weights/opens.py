"""Counts how often a file is opened, by any library, with Linux's inotify."""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_IN_OPEN, _IN_CLOSE = 0x20, 0x18
_EVENT = struct.Struct("iIII")


class Opens:
    """The events of a file since the watch began."""

    def __init__(self, descriptor: int):
        self._descriptor, self._number = descriptor, 0

    @property
    def number(self) -> int:
        """How often the file was opened."""
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self._descriptor, 2**16):
                while content:
                    _, mask, _, length = _EVENT.unpack_from(content)
                    self._number += bool(mask & _IN_OPEN)
                    content = content[_EVENT.size + length :]
        return self._number


@contextlib.contextmanager
def watch_opens(path: Path) -> Iterator[Opens]:
    """Watches a file; skips the test where the system cannot."""
    if sys.platform != "linux":
        pytest.skip("inotify is Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, bytes(path), _IN_OPEN | _IN_CLOSE) < 0:
        pytest.skip(f"inotify: {os.strerror(ctypes.get_errno())}")
    try:
        yield Opens(descriptor)
    finally:
        os.close(descriptor)
