"""The archive of a test set, in any format, or the folder that it unpacks to."""

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from pnoise_jax.data.prepare.sources.archives import Tar, Zip
from pnoise_jax.data.prepare.sources.class_folders import top_folders
from pnoise_jax.data.prepare.sources.sources import Folder, Listing, Source

_GZIP = b"\x1f\x8b"
_MOST = 1 << 36  # bytes that one file may unpack to; the official ones have 1.2 GiB


def find(manual_dir: Path, names: Sequence[str], folder: str, *, scratch: Path) -> Source | None:
    """The first archive that exists, else the folder; None if neither exists.

    Args:
      manual_dir: the directory of the downloads.
      names: the name of the archive, and other possible names.
      folder: the folder that the archive unpacks to; `manual_dir` itself may be it.
      scratch: the directory for unpacking a tar that is compressed by gzip, because its images are
        read one by one.

    Raises:
      OSError: the archive is cut off or damaged.
    """
    for name in names:
        path = manual_dir / name
        if path.is_file():
            return Zip(path) if path.suffix == ".zip" else Tar(_uncompressed(path, scratch))
    if (manual_dir / folder).is_dir():
        return Folder(manual_dir / folder)
    return Folder(manual_dir) if manual_dir.name == folder else None


def root_of(listing: Listing, folder: str) -> str:
    """The folder with the class folders: this one, or "." if the source does not have it."""
    return folder if folder in top_folders(listing, ".") else "."


def _uncompressed(path: Path, scratch: Path) -> Path:
    """The tar itself, or an unpacked copy if its content, whatever its name, is gzip."""
    with open(path, "rb") as file:
        if file.read(len(_GZIP)) != _GZIP:
            return path
    status = path.stat()
    target = scratch / f"unpacked-{status.st_size}-{status.st_mtime_ns}-{path.name}.tar"
    if target.exists():
        return target
    scratch.mkdir(parents=True, exist_ok=True)
    part = scratch / "part.unpacked"
    try:
        with gzip.open(path) as packed, open(part, "wb") as file:
            while block := packed.read(1 << 20):
                file.write(block)
                if file.tell() > _MOST:
                    raise OSError(
                        f"{path} unpacks to more than {_MOST:,} bytes: it is not the official "
                        "archive; download it again"
                    )
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise OSError(f"{path} is cut off or damaged ({error}): download it again") from error
    os.replace(part, target)
    return target
