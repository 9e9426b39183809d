"""The archive of a test set, packed in whatever way, or the folder that comes out of it."""

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from pnoise_jax.data.prepare.archives import Tar, Zip
from pnoise_jax.data.prepare.class_folders import top_folders
from pnoise_jax.data.prepare.sources import Folder, Listing, Source

_GZIP = b"\x1f\x8b"
_MOST = 1 << 36  # bytes that are unpacked of one file; the official ones have 1.2 GiB


def find(manual_dir: Path, names: Sequence[str], folder: str, *, scratch: Path) -> Source | None:
    """The first archive that is there, else the folder; None where neither is.

    Args:
      manual_dir: where they are.
      names: of the archive, what it is called and what else would do.
      folder: what comes out of it; `manual_dir` itself may be it.
      scratch: where a tar is unpacked that is compressed by gzip, as its images are read singly.

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
    """Where the class folders are: below this folder, or "." where it is not in the source."""
    return folder if folder in top_folders(listing, ".") else "."


def _uncompressed(path: Path, scratch: Path) -> Path:
    """The tar itself, or, as the names of tars promise too much, what gzip has made of one."""
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
