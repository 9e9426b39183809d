"""preparation.json: how a data set was prepared, and the checksums of its files.

The checksums are CRC-32C: they detect disk errors, failed copies and mixtures of two preparations,
but do not protect against deliberate changes.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c

PREPARATION = "preparation.json"
FORMAT = 1  # directories with another format are rejected; "files" was added later, may be missing

# Up to this many bytes of records are read completely to verify them before the first is used,
# which takes about a second. Of larger files, only the sizes are compared: each record has its own
# checksum, which is verified when it is read.
_READ_WHOLE = 1 << 30


@dataclasses.dataclass(frozen=True)
class Checksum:
    """The size and the checksum of a file.

    Attributes:
      size: in bytes.
      crc32c: 8 hexadecimal digits.
    """

    size: int
    crc32c: str

    def __post_init__(self):
        if type(self.size) is not int or not isinstance(self.crc32c, str):
            raise TypeError(f"the checksum {self} is not a size and a crc32c")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of preparation.json.

    Attributes:
      directory: the directory that contains it.
      short_side: the short side in pixels that images were shrunk to; None if they were not.
      files: checksums by file name; None if none were recorded, because TFDS or an earlier version
        of this package prepared the data set.
      is_ours: True if this package prepared the directory, False if TFDS did.
      layout: how the class folders were interpreted; None if the data set has its own layout, or
        the layout was not recorded.
    """

    directory: Path
    short_side: int | None = None
    files: Mapping[str, Checksum] | None = None
    is_ours: bool = False
    layout: str | None = None

    def check_metadata(self) -> None:
        """Verifies the files of metadata that TFDS reads, such as the names of classes.

        Raises:
          OSError: a file is missing or has changed since it was prepared; names it.
        """
        for name in self.files or ():
            if name.endswith((".json", ".txt")):
                self._check(name)

    def check_labels(self, name: str) -> bool:
        """Verifies a file of labels; returns False if no checksum was recorded for it.

        Raises:
          OSError: the file has changed since it was prepared, or is missing.
        """
        if name not in (self.files or ()):
            return False
        self._check(name, "; or delete this file, and the labels will be read from the records")
        return True

    def check_records(self, names: Iterable[str]) -> None:
        """Verifies files of records: their sizes and, if they are small in total, all bytes.

        Raises:
          OSError: one is missing or has changed since it was prepared; names it.
        """
        files = self.files or {}
        known = [name for name in names if name in files]
        whole = sum(files[name].size for name in known) <= _READ_WHOLE
        with ThreadPoolExecutor(8) as pool:  # many, as they mostly wait for the disk
            list(pool.map(functools.partial(self._check, whole=whole), known))

    def check_all(self) -> int:
        """Verifies all bytes of all files; returns the number of files, 0 without checksums.

        Raises:
          OSError: a file is missing or has changed since it was prepared; names it.
        """
        with ThreadPoolExecutor(8) as pool:
            return len(list(pool.map(self._check, self.files or ())))

    def _check(self, name: str, advice: str = "", *, whole: bool = True) -> None:
        path, expected = self.directory / name, (self.files or {})[name]
        try:
            status = path.stat()
            problem = ""
            if status.st_size != expected.size:
                problem = f"{status.st_size} bytes instead of {expected.size}"
            elif whole:
                actual = _crc32c(path, status.st_ino, status.st_size, status.st_mtime_ns)
                if actual != expected.crc32c:
                    problem = f"crc32c {actual} instead of {expected.crc32c}"
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path} is missing: copy the data set again") from error
        if problem:
            raise OSError(
                f"{path} has changed since it was prepared ({problem}, which {PREPARATION} "
                f"records): copy the data set again, or prepare it again{advice}"
            )


def checksum(path: Path) -> Checksum:
    """The size and checksum of a file; reads it completely.

    Raises:
      OSError: it cannot be read.
    """
    status = path.stat()
    return Checksum(
        status.st_size, _crc32c(path, status.st_ino, status.st_size, status.st_mtime_ns)
    )


@functools.lru_cache(maxsize=1 << 16)  # a process may open the same data set many times
def _crc32c(path: Path, *_stamp: int) -> str:
    checksum = google_crc32c.Checksum()
    with open(path, "rb", buffering=0) as file:
        for _ in checksum.consume(file, 1 << 20):
            pass
    return checksum.hexdigest().decode()


def write(
    directory: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    known: Mapping[str, Checksum] | None = None,
) -> None:
    """Writes preparation.json, with the checksums of all files in the directory.

    Args:
      directory: the directory, complete except for preparation.json.
      settings: how it was prepared: attributes of `Manifest`, such as `short_side`.
      known: checksums by file name that are already known and need not be computed.
    """
    known = known or {}
    names = sorted(path.name for path in directory.iterdir() if path.name != PREPARATION)
    files = {
        name: dataclasses.asdict(known.get(name) or checksum(directory / name)) for name in names
    }
    content = {"format": FORMAT, "short_side": None, **(settings or {}), "files": files}
    (directory / PREPARATION).write_text(json.dumps(content, indent=1))


def digest(directory: Path) -> str:
    """A digest that differs between data sets with different files.

    It covers preparation.json, which has the checksum of every file, and TFDS's dataset_info.json,
    which has the sizes of the shards. The other files are not read.
    """
    total = hashlib.sha256()
    for name in (PREPARATION, "dataset_info.json"):
        file = directory / name
        total.update(file.read_bytes() if file.is_file() else b"none")
    return total.hexdigest()[:16]


def read(directory: Path) -> Manifest:
    """Reads preparation.json; if there is none, TFDS prepared the data set.

    Raises:
      OSError: preparation.json cannot be read or has invalid content; names it.
      ValueError: another version of this package prepared the data set, in another format.
    """
    file = directory / PREPARATION
    if not os.path.lexists(file):
        return Manifest(directory)
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is not a regular file")  # reading a pipe would wait forever
        content = json.loads(file.read_text())
        kind, short_side, files = content["format"], content.get("short_side"), content.get("files")
        if not isinstance(short_side, int | None):
            raise TypeError(f"short_side is {short_side!r}")
        if kind == FORMAT and files is not None:
            files = {name: Checksum(**value) for name, value in files.items()}
    except (
        *(OSError, ValueError, TypeError),
        *(KeyError, AttributeError, RecursionError),
    ) as error:
        raise OSError(
            f"{file} cannot be read as what pnoise prepare writes ({type(error).__name__}: "
            f"{error}): delete {directory} and prepare it again, or copy it again"
        ) from error
    if kind != FORMAT:
        raise ValueError(
            f"{directory} was prepared by another version of this program (format {kind!r}; this "
            f"version reads format {FORMAT}): delete it and prepare it again, or use another "
            "directory"
        )
    return Manifest(directory, short_side, files, is_ours=True, layout=content.get("layout"))
