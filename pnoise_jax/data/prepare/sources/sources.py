"""Sources of images: directories or archives, listed without reading any, then read singly."""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pnoise_jax.data.prepare.sources.litter import is_litter
from pnoise_jax.terminal import printable

HEAD = 512  # bytes from which the kind of a file is recognised
MAX_TEXT = 1 << 26  # bytes of a list of labels; the longest known lists have a few MB
MAX_BYTES = 1 << 29  # of a file that is read whole; no image that can be decoded is as large


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One file of a source.

    Attributes:
      path: relative to the source, with slashes.
      size: in bytes.
      offset: in a tar, the position at which its bytes begin.
      stamp: changes when the file does: the modification time in ns in a directory, the checksum in
        a zip.
    """

    path: str
    size: int
    offset: int = 0
    stamp: int = 0


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files and folders in a source; empty folders are listed as well.

    Attributes:
      members: the files.
      folders: their paths.
      litter: system folders that were not scanned.
    """

    members: list[Member]
    folders: frozenset[str]
    litter: tuple[str, ...] = ()


Read = Callable[[Member], bytes]


def require_readable_size(member: Member, where: object) -> None:
    """Raises OSError if a file is too large to be read whole, before any of it is read."""
    if member.size > MAX_BYTES:
        raise OSError(
            f"{where}: {printable(member.path)} has {member.size:,} bytes unpacked, but at most "
            f"{MAX_BYTES:,} are read of one file: remove it, or make it smaller"
        )


def read_text(source: "Source", member: Member) -> str:
    """The text of a list of labels or classes.

    Raises:
      OSError: it cannot be read, or is far longer than any known list.
    """
    if member.size > MAX_TEXT:
        raise OSError(
            f"{source.path}: {printable(member.path)} has {member.size:,} bytes unpacked, but at "
            f"most {MAX_TEXT:,} are read of a list: use the official archive"
        )
    with source.open() as read:
        return read(member).decode("utf-8", "replace")


class Source(Protocol):
    """A directory or an archive.

    Attributes:
      path: of the directory or archive.
      stamp: changes when the archive does; "" for a directory, whose members have stamps.
    """

    path: Path
    stamp: str

    def scan(self) -> Listing:
        """Lists its files and folders, without reading their content.

        Raises:
          OSError: it cannot be read, or is cut off.
        """
        ...

    def open(self) -> contextlib.AbstractContextManager[Read]:
        """Yields a function that reads a member's bytes, from any thread; it raises OSError.

        Members of more than `MAX_BYTES` are refused before they are read.
        """
        ...

    def heads(self, members: Sequence[Member]) -> Iterator[bytes | None]:
        """The first `HEAD` bytes of each member; None if it cannot be opened."""
        ...


def _status(path: Path) -> os.stat_result:
    """The status of a path, with links followed; raises OSError with the fix for a broken link."""
    try:
        return os.stat(path)
    except OSError as error:
        if not path.is_symlink():
            raise
        raise type(error)(
            f"{printable(str(path))} is a link to {printable(os.readlink(path))!r}, which cannot "
            f"be read ({error.strerror}): remove the link, or restore its target"
        ) from error


class Folder:
    """A directory."""

    stamp = ""

    def __init__(self, path: Path):
        self.path = path

    def scan(self) -> Listing:
        """See `Source`; follows symbolic links, and raises OSError for those that form a circle."""
        members: list[Member] = []
        folders: set[str] = set()
        litter: list[str] = []
        self._scan("", (), members, folders, litter)
        return Listing(members, frozenset(folders), tuple(litter))

    def _scan(
        self,
        inside: str,
        above: tuple,
        members: list[Member],
        folders: set[str],
        litter: list[str],
    ) -> None:
        directory = self.path / inside
        status = directory.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise OSError(
                f"{printable(str(directory))} is a link to a folder that contains it: remove it"
            )
        subdirectories = []
        for name in sorted(os.listdir(directory)):
            path = f"{inside}/{name}".lstrip("/")
            if is_litter(path):  # often readable only by root
                litter += [path] * (directory / name).is_dir()
                continue
            status = _status(directory / name)
            if stat.S_ISDIR(status.st_mode):
                subdirectories.append(path)
            elif stat.S_ISREG(status.st_mode):
                members.append(Member(path, status.st_size, stamp=status.st_mtime_ns))
            else:
                raise OSError(
                    f"{printable(str(directory / name))} is neither a file nor a folder: remove it"
                )
        folders.update(subdirectories)
        for path in subdirectories:
            self._scan(path, (*above, here), members, folders, litter)

    @contextlib.contextmanager
    def open(self) -> Iterator[Read]:
        """See `Source`."""

        def read(member: Member) -> bytes:
            require_readable_size(member, self.path)
            return (self.path / member.path).read_bytes()

        yield read

    def heads(self, members: Sequence[Member]) -> Iterator[bytes | None]:
        """See `Source`."""
        for member in members:
            try:
                with open(self.path / member.path, "rb") as file:
                    yield file.read(HEAD)
            except OSError:
                yield None
