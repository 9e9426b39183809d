"""Images in a tar or a zip, listed without unpacking it, then read one by one."""

import contextlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pnoise_jax.data.prepare.sources.litter import is_litter
from pnoise_jax.data.prepare.sources.sources import (
    HEAD,
    Listing,
    Member,
    Read,
    require_readable_size,
)
from pnoise_jax.terminal import printable

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error)
_MAX_DEFLATE = 1032  # the most bytes that one byte of a deflate stream can unpack to


class Tar:
    """An uncompressed tar; if `nested`, also the tars in it: members `n01440764.tar/<file>`."""

    def __init__(self, path: Path, *, nested: bool = False):
        self.path, self.nested, self.stamp = path, nested, _stamp(path)

    def scan(self) -> Listing:
        """See `Source`."""
        members, folders = [], set()
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for header in _headers(file, 0, size, str(self.path)):
                path = _inside(header.name, self.path)
                if header.isdir():
                    folders.add(path)
                    continue
                _require_plain(header, str(self.path))
                if self.nested and path.endswith(".tar") and not is_litter(path):
                    members += self._inner(file, header, path)
                else:
                    members.append(Member(path, header.size, header.offset_data))
        _refuse_twice(members, self.path)
        return Listing(members, _with_parents(members, folders))

    def _inner(self, file: BinaryIO, outer: tarfile.TarInfo, path: str) -> list[Member]:
        # A tar inside a tar is not compressed, so its members can be read in place.
        end = outer.offset_data + outer.size
        where, members = f"{self.path}: {path}", []
        for header in _headers(file, outer.offset_data, end, where):
            if not header.isdir():
                _require_plain(header, where)
                name = f"{path}/{_inside(header.name, where)}"
                members.append(Member(name, header.size, header.offset_data))
        return members

    @contextlib.contextmanager
    def open(self) -> Iterator[Read]:
        """See `Source`."""
        with open(self.path, "rb", buffering=0) as file:

            def read(member: Member) -> bytes:
                require_readable_size(member, self.path)
                data = os.pread(file.fileno(), member.size, member.offset)
                if len(data) != member.size:
                    raise OSError(f"{self.path} is cut off in {printable(member.path)}")
                return data

            yield read

    def heads(self, members: Sequence[Member]) -> Iterator[bytes | None]:
        """See `Source`."""
        with open(self.path, "rb", buffering=0) as file:
            for member in members:
                yield os.pread(file.fileno(), min(HEAD, member.size), member.offset)


class Zip:
    """A zip archive."""

    def __init__(self, path: Path):
        self.path, self.stamp = path, _stamp(path)

    def scan(self) -> Listing:
        """See `Source`; raises OSError if the sizes in the directory of the zip are impossible."""
        with self._opened() as archive:
            infos = archive.infolist()
        _refuse_overlaps(infos, self.path)
        paths = {info: _inside(info.filename, self.path) for info in infos}
        members = [
            Member(path, info.file_size, stamp=info.CRC)
            for info, path in paths.items()
            if not info.is_dir()
        ]
        _refuse_twice(members, self.path)
        folders = {path for info, path in paths.items() if info.is_dir()}
        return Listing(members, _with_parents(members, folders))

    @contextlib.contextmanager
    def open(self) -> Iterator[Read]:
        """See `Source`; verifies the checksum of each member."""
        with self._opened() as archive:
            infos = {_normal(info.filename): info for info in archive.infolist()}

            def read(member: Member) -> bytes:
                require_readable_size(member, self.path)
                try:
                    # Read only its stated size: reading to the end would unpack any amount of data.
                    with archive.open(infos[member.path]) as file:
                        data = file.read(member.size)
                except Exception as error:  # zipfile and zlib may raise anything on damaged bytes
                    raise OSError(f"{self.path}: {printable(member.path)}: {error}") from error
                if len(data) != member.size:
                    raise OSError(
                        f"{self.path}: {printable(member.path)} has {len(data)} bytes, but "
                        f"{member.size} in the zip's directory: download it again"
                    )
                return data

            yield read

    def heads(self, members: Sequence[Member]) -> Iterator[bytes | None]:
        """See `Source`."""
        with self._opened() as archive:
            infos = {_normal(info.filename): info for info in archive.infolist()}
            for member in members:
                try:
                    with archive.open(infos[member.path]) as file:
                        yield file.read(HEAD)
                except (OSError, RuntimeError, EOFError, ValueError, *_ZIP_ERRORS):
                    yield None  # encrypted, damaged, or compressed by an unsupported method

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise OSError(
                f"{self.path} is not a complete zip ({error}): cut off, or not the archive? "
                "Download it again."
            ) from error


def _headers(file: BinaryIO, start: int, end: int, name: str) -> Iterator[tarfile.TarInfo]:
    """The headers of the tar in bytes start..end of a file; their offsets are in the file."""
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for header in tar:
                if header.offset_data + header.size > end:
                    break
                yield header
            else:
                # A bad header ends tarfile's loop like the true end, which is a block of zeros.
                file.seek(tar.offset)
                if tar.offset + 512 <= end and not any(file.read(512)):
                    _require_zeros(file, end, name)
                    return
    except tarfile.TarError as error:
        raise OSError(
            f"{name} is not a complete, uncompressed tar ({error}): cut off, or not the archive? "
            "Download it again."
        ) from error
    raise OSError(f"{name} is cut off or damaged ({end - start} bytes): download it again.")


def _require_zeros(file: BinaryIO, end: int, name: str) -> None:
    """Raises OSError if anything but padding follows, because no reader would ever see it."""
    while block := file.read(min(1 << 20, end - file.tell())):
        if block.count(0) != len(block):
            raise OSError(
                f"{name} continues after the end of its tar, as archives joined by cat do: "
                "unpack each of them and give the folder, or pack one archive"
            )


def _require_plain(header: tarfile.TarInfo, where: str) -> None:
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.issparse():
        kind = "a link" if header.islnk() or header.issym() else "not a regular file"
        raise OSError(
            f"{where}: {printable(header.name)} is {kind}, so it cannot be read in place: "
            "use the official archive, or extract this one and give the folder"
        )


def _inside(name: str, where: object) -> str:
    """A member's normalised path.

    Raises:
      OSError: it leads out of the archive, or contains a null character.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise OSError(
            f"{where}: {name!r} leads out of the archive: it is not the official one, "
            "or was made with absolute paths; use the official one, or pack it again"
        )
    return str(path)


def _refuse_twice(members: Sequence[Member], where: object) -> None:
    seen: set[str] = set()
    for member in members:
        if member.path in seen:
            raise OSError(
                f"{where} has {printable(member.path)} twice, and it is not clear which is "
                "meant: use the official archive, or pack it again"
            )
        seen.add(member.path)


def _refuse_overlaps(infos: Sequence[zipfile.ZipInfo], where: object) -> None:
    """Raises OSError if members share bytes or state impossible sizes, as in a zip bomb."""
    end, before = 0, ""
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise OSError(
                f"{where}: {printable(before)} and {printable(info.filename)} share bytes of the "
                "zip: it is damaged or malicious; download it again"
            )
        end, before = info.header_offset + 30 + info.compress_size, info.filename
        stored = info.compress_type == zipfile.ZIP_STORED
        most = info.compress_size * (1 if stored else _MAX_DEFLATE) + 64
        if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and (
            info.file_size > most
        ):
            raise OSError(
                f"{where}: {printable(info.filename)} claims to have {info.file_size:,} bytes, "
                f"which cannot be unpacked from {info.compress_size:,}: download it again"
            )


def _normal(path: str) -> str:
    """A path without "./" and the like."""
    return str(PurePosixPath(path))


def _with_parents(members: list[Member], folders: set[str]) -> frozenset[str]:
    paths = {member.path.rpartition("/")[0] for member in members} | folders
    parents = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return frozenset((paths | parents) - {"", "."})


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"
