"""Where images lie: a directory or an archive, listed without reading them, then read singly."""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pnoise_jax.data.prepare.litter import is_litter
from pnoise_jax.terminal import printable

HEAD = 512  # bytes that tell what a file is
MAX_TEXT = 1 << 26  # of a list of labels; the longest known have some MB
MAX_BYTES = 1 << 29  # of a file that is read whole: far above an image that can be decoded


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One file of a source.

    Attributes:
      path: in the source, with slashes.
      size: bytes.
      offset: where in the archive its bytes begin, of a tar.
      stamp: changes when the file does: its time in ns in a directory, its checksum in a zip.
    """

    path: str
    size: int
    offset: int = 0
    stamp: int = 0


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source holds: its files, and its folders, empty ones too, by path.

    Attributes:
      members: the files.
      folders: by path.
      litter: folders of the system's that were not looked into.
    """

    members: list[Member]
    folders: frozenset[str]
    litter: tuple[str, ...] = ()


Read = Callable[[Member], bytes]


def require_readable_size(member: Member, where: object) -> None:
    """Raises OSError where a file is too large to be read whole, before a byte of it is read."""
    if member.size > MAX_BYTES:
        raise OSError(
            f"{where}: {printable(member.path)} has {member.size:,} bytes unpacked, and at most "
            f"{MAX_BYTES:,} are read of one file: take it away, or store it smaller"
        )


def read_text(source: "Source", member: Member) -> str:
    """A list of labels or classes.

    Raises:
      OSError: it cannot be read, or is far longer than any list.
    """
    if member.size > MAX_TEXT:
        raise OSError(
            f"{source.path}: {printable(member.path)} has {member.size:,} bytes unpacked, and at "
            f"most {MAX_TEXT:,} are read of a list: take the official archive"
        )
    with source.open() as read:
        return read(member).decode("utf-8", "replace")


class Source(Protocol):
    """A directory or an archive.

    Attributes:
      path: where it is.
      stamp: changes when the archive does; "" of a directory, whose members have their own.
    """

    path: Path
    stamp: str

    def scan(self) -> Listing:
        """Its files and folders, from their headers alone.

        Raises:
          OSError: it cannot be read, or is cut off.
        """
        ...

    def open(self) -> contextlib.AbstractContextManager[Read]:
        """What reads a member's bytes, from any thread; it raises OSError.

        What has more than `MAX_BYTES` is refused before it is read.
        """
        ...

    def heads(self, members: Sequence[Member]) -> Iterator[bytes | None]:
        """The first `HEAD` bytes of each member; None of what cannot be opened."""
        ...


def _status(path: Path) -> os.stat_result:
    """Of a file or folder, or what a link leads to; raises OSError with the fix if to nothing."""
    try:
        return os.stat(path)
    except OSError as error:
        if not path.is_symlink():
            raise
        raise type(error)(
            f"{printable(str(path))} is a link to {printable(os.readlink(path))!r}, which cannot "
            f"be read ({error.strerror}): take the link away, or put back what it leads to"
        ) from error


class Folder:
    """A directory."""

    stamp = ""

    def __init__(self, path: Path):
        self.path = path

    def scan(self) -> Listing:
        """See `Source`; symbolic links are followed, but for those that lead in a circle."""
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
                f"{printable(str(directory))} is a link to a folder that it lies in: take it away"
            )
        subdirectories = []
        for name in sorted(os.listdir(directory)):
            path = f"{inside}/{name}".lstrip("/")
            if is_litter(path):  # often nobody but root may look into it
                litter += [path] * (directory / name).is_dir()
                continue
            status = _status(directory / name)
            if stat.S_ISDIR(status.st_mode):
                subdirectories.append(path)
            elif stat.S_ISREG(status.st_mode):
                members.append(Member(path, status.st_size, stamp=status.st_mtime_ns))
            else:
                raise OSError(
                    f"{printable(str(directory / name))} is neither file nor folder: take it away"
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
