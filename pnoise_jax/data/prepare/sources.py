"""Where images lie: a directory, a tar or a zip, listed without reading them, then read singly."""

import contextlib
import dataclasses
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol


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
    """What a source holds: its files, and its folders, empty ones too, by path."""

    members: list[Member]
    folders: frozenset[str]


Read = Callable[[Member], bytes]


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

    def open(self) -> contextlib.AbstractContextManager[Read]:
        """What reads a member's bytes, from any thread; it raises OSError."""


class Folder:
    """A directory."""

    stamp = ""

    def __init__(self, path: Path):
        self.path = path

    def scan(self) -> Listing:
        """See `Source`; symbolic links are followed."""
        members, folders = [], set()
        for directory, subdirectories, files in os.walk(
            self.path, followlinks=True, onerror=_raise
        ):
            subdirectories.sort()
            inside = PurePosixPath(Path(directory).relative_to(self.path).as_posix())
            folders.add(str(inside))
            for name in sorted(files):
                status = os.stat(os.path.join(directory, name))  # a dangling link raises, by name
                path = str(inside / name)
                members.append(Member(path, status.st_size, stamp=status.st_mtime_ns))
        return Listing(members, frozenset(folders - {"."}))

    @contextlib.contextmanager
    def open(self) -> Iterator[Read]:
        """See `Source`."""
        yield lambda member: (self.path / member.path).read_bytes()


class Tar:
    """An uncompressed tar, and the tars in it if `nested`: members `n01440764.tar/<file>`."""

    def __init__(self, path: Path, *, nested: bool = False):
        self.path, self.nested, self.stamp = path, nested, _stamp(path)

    def scan(self) -> Listing:
        """See `Source`."""
        members, folders = [], set()
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for found in _headers(file, 0, size, str(self.path)):
                path = str(PurePosixPath(found.name))
                if found.isdir():
                    folders.add(path)
                elif found.isfile() and self.nested and path.endswith(".tar"):
                    members += self._inner(file, found, path)
                elif found.isfile():
                    members.append(Member(path, found.size, found.offset_data))
        return Listing(members, _with_parents(members, folders))

    def _inner(self, file: BinaryIO, outer: tarfile.TarInfo, path: str) -> list[Member]:
        # A tar inside a tar is not compressed, so its members are read where they lie.
        end = outer.offset_data + outer.size
        return [
            Member(f"{path}/{PurePosixPath(found.name)}", found.size, found.offset_data)
            for found in _headers(file, outer.offset_data, end, f"{self.path}: {path}")
            if found.isfile()
        ]

    @contextlib.contextmanager
    def open(self) -> Iterator[Read]:
        """See `Source`."""
        with open(self.path, "rb", buffering=0) as file:

            def read(member: Member) -> bytes:
                data = os.pread(file.fileno(), member.size, member.offset)
                if len(data) != member.size:
                    raise OSError(f"{self.path} is cut off in {member.path}")
                return data

            yield read


class Zip:
    """A zip."""

    def __init__(self, path: Path):
        self.path, self.stamp = path, _stamp(path)

    def scan(self) -> Listing:
        """See `Source`."""
        with self._opened() as archive:
            found = archive.infolist()
        members = [Member(i.filename, i.file_size, stamp=i.CRC) for i in found if not i.is_dir()]
        folders = {i.filename.rstrip("/") for i in found if i.is_dir()}
        return Listing(members, _with_parents(members, folders))

    @contextlib.contextmanager
    def open(self) -> Iterator[Read]:
        """See `Source`; the checksum is verified."""
        with self._opened() as archive:

            def read(member: Member) -> bytes:
                try:
                    return archive.read(member.path)
                except Exception as error:  # whatever zipfile and zlib raise on damaged bytes
                    raise OSError(f"{self.path}: {member.path}: {error}") from error

            yield read

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise OSError(
                f"{self.path} is no whole zip ({error}): cut off, or not the archive? "
                "Download it again."
            ) from error


def _headers(file: BinaryIO, start: int, end: int, name: str) -> Iterator[tarfile.TarInfo]:
    """The headers of the tar in bytes start..end of a file; offsets are the file's."""
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for found in tar:
                if found.offset_data + found.size > end:
                    break
                yield found
            else:
                # A bad header ends tarfile's loop as the true end does, which is a block of zeros.
                file.seek(tar.offset)
                if tar.offset + 512 <= end and not any(file.read(512)):
                    return
    except tarfile.TarError as error:
        raise OSError(
            f"{name} is no whole, uncompressed tar ({error}): cut off, or not the archive? "
            "Download it again."
        ) from error
    raise OSError(f"{name} is cut off or damaged ({end - start} bytes): download it again.")


def _with_parents(members: list[Member], folders: set[str]) -> frozenset[str]:
    paths = {member.path.rpartition("/")[0] for member in members} | folders
    parents = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return frozenset((paths | parents) - {"", "."})


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _raise(error: OSError) -> None:
    raise error
