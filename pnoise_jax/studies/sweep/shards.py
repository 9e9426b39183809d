"""Shards of a sweep: several processes, on one or more machines, that share one work directory.

Each shard writes its rows to its own file, so no row depends on locks that work across machines.
Where locks do work, they keep a whole sweep and shards from running at the same time.
"""

import contextlib
import dataclasses
import fcntl
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Self, TypeVar

from pnoise_jax.runs import lock

DIRECTORY = "shards"  # in the work directory of the sweep
_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of several equal parts of a sweep.

    Attributes:
      index: its number, from 0.
      count: the number of shards.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses the value of --shard, such as "0/4".

        Raises:
          ValueError: the text is not of the form INDEX/COUNT, or a number is out of range.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if match is None:
            raise ValueError(
                f"--shard={text!r} is not of the form INDEX/COUNT: to run the first of four "
                "shards, give --shard=0/4"
            )
        index, count = int(match[1]), int(match[2])
        if count == 0:
            raise ValueError(
                f"--shard={text!r} means 0 shards: give at least one, such as --shard=0/1"
            )
        if index >= count:
            last = count - 1
            raise ValueError(
                f"--shard={text!r}: shards are numbered from 0, so give a number from 0 to {last}, "
                f"such as --shard={last}/{count} for the last one"
            )
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def file(self, path: Path) -> Path:
        """Returns the file in the work directory ``path`` to which this shard writes its rows."""
        return path / DIRECTORY / f"{self.index}-of-{self.count}.csv"

    def share(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Returns every ``count``-th item, starting at ``index``."""
        return items[self.index :: self.count]


def files(path: Path) -> list[Path]:
    """Returns the files in the work directory ``path`` that contain rows of shards."""
    return sorted((path / DIRECTORY).glob("*-of-*.csv"))


@contextlib.contextmanager
def lock_all(path: Path) -> Iterator[None]:
    """Keeps other sweeps and shards on this machine out of ``path``, which must be writable.

    Raises:
      OSError: another sweep or shard is running there.
    """
    with lock(path), contextlib.ExitStack() as stack:
        if (path / DIRECTORY).is_dir():  # otherwise no shard has started
            file = stack.enter_context(_open(path, ".lock"))
            if not _lock(file, fcntl.LOCK_EX):
                raise OSError(
                    f"--workdir={str(path)!r} is in use: shards of a sweep are at work there; wait "
                    "until they have finished, or choose another directory"
                )
        yield


@contextlib.contextmanager
def lock_for_shard(path: Path, claim: Callable[[bool], None]) -> Iterator[None]:
    """Keeps whole sweeps on this machine out of ``path``, but not other shards.

    Args:
      path: the work directory; it must be writable.
      claim: called while no other sweep or shard can start there; its argument says whether other
        shards are running.

    Raises:
      OSError: a whole sweep is running there.
    """
    (path / DIRECTORY).mkdir(exist_ok=True)
    with _open(path, ".lock") as file:
        with _open(path, ".starting") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)  # held by other shards for seconds only
            with lock(path):
                others = not _lock(file, fcntl.LOCK_EX)
                fcntl.flock(file, fcntl.LOCK_SH)
                claim(others)
        yield


def _open(path: Path, name: str) -> IO:
    return (path / DIRECTORY / name).open("a")


def _lock(file: IO, kind: int) -> bool:
    """Acquires a lock unless another process holds it; returns whether it did."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
