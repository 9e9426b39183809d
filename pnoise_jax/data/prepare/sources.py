"""Where images lie: a directory, a tar or a zip, listed without reading them, then read singly."""

import contextlib
import dataclasses
import os
import stat
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
        """See `Source`; symbolic links are followed, but for those that lead in a circle."""
        members: list[Member] = []
        folders: set[str] = set()
        self._scan("", (), members, folders)
        return Listing(members, frozenset(folders))

    def _scan(self, inside: str, above: tuple, members: list[Member], folders: set[str]) -> None:
        directory = self.path / inside
        status = directory.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise OSError(f"{directory} is a link to a folder that it lies in: take it away")
        subdirectories = []
        for name in sorted(os.listdir(directory)):
            path = f"{inside}/{name}".lstrip("/")
            status = os.stat(directory / name)  # a dangling link raises, by name
            if stat.S_ISDIR(status.st_mode):
                subdirectories.append(path)
            elif stat.S_ISREG(status.st_mode):
                members.append(Member(path, status.st_size, stamp=status.st_mtime_ns))
            else:
                raise OSError(f"{directory / name} is neither file nor folder: take it away")
        folders.update(subdirectories)
        for path in subdirectories:
            self._scan(path, (*above, here), members, folders)

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
                    continue
                _require_plain(found, str(self.path))
                if self.nested and path.endswith(".tar"):
                    members += self._inner(file, found, path)
                else:
                    members.append(Member(path, found.size, found.offset_data))
        return Listing(members, _with_parents(members, folders))

    def _inner(self, file: BinaryIO, outer: tarfile.TarInfo, path: str) -> list[Member]:
        # A tar inside a tar is not compressed, so its members are read where they lie.
        end = outer.offset_data + outer.size
        where, members = f"{self.path}: {path}", []
        for found in _headers(file, outer.offset_data, end, where):
            if not found.isdir():
                _require_plain(found, where)
                name = f"{path}/{PurePosixPath(found.name)}"
                members.append(Member(name, found.size, found.offset_data))
        return members

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
        members = [
            Member(_normal(i.filename), i.file_size, stamp=i.CRC) for i in found if not i.is_dir()
        ]
        folders = {_normal(i.filename) for i in found if i.is_dir()}
        return Listing(members, _with_parents(members, folders))

    @contextlib.contextmanager
    def open(self) -> Iterator[Read]:
        """See `Source`; the checksum is verified."""
        with self._opened() as archive:
            infos = {_normal(info.filename): info for info in archive.infolist()}

            def read(member: Member) -> bytes:
                try:
                    return archive.read(infos[member.path])
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


def _require_plain(found: tarfile.TarInfo, where: str) -> None:
    if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or found.issparse():
        kind = "a link" if found.islnk() or found.issym() else "no plain file"
        raise OSError(
            f"{where}: {found.name} is {kind}, and its bytes are not in its place: take the "
            "official archive, or extract this one and give the folder"
        )


def _normal(path: str) -> str:
    """Without "./" and the like."""
    return str(PurePosixPath(path))


def _with_parents(members: list[Member], folders: set[str]) -> frozenset[str]:
    paths = {member.path.rpartition("/")[0] for member in members} | folders
    parents = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return frozenset((paths | parents) - {"", "."})


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"
