"""Files that are written completely or not at all, and paths that are checked before long work."""

import contextlib
import csv
import io
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file, completely or not at all; also an object in a bucket.

    Raises:
      OSError: it cannot be written; the old file stays.
    """
    if is_url(path):  # objects are replaced as a whole
        path.write_bytes(_as_bytes(content))
        return
    with replacing(path) as temporary:
        temporary.write_bytes(_as_bytes(content))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` for the block to write, which takes its place once it is whole.

    Raises:
      OSError: it cannot be written; the old file stays.
    """
    with _temporary(path) as temporary:
        yield temporary
        os.replace(temporary, path)


def create_file(path: Path, content: str | bytes) -> None:
    """Writes a new file, completely or not at all.

    Raises:
      FileExistsError: it already exists.
      OSError: it cannot be written.
    """
    with creating(path) as temporary:
        temporary.write_bytes(_as_bytes(content))


@contextlib.contextmanager
def creating(path: Path) -> Iterator[Path]:
    """A file beside ``path`` for the block to write, which gets that name once it is whole.

    Raises:
      FileExistsError: another file has the name by then.
      OSError: it cannot be written.
    """
    with _temporary(path) as temporary:
        yield temporary
        move_to_new(temporary, path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside ``path`` that no other process has; what stays there at the end is deleted."""
    temporary = path.with_name(f".{path.name[-200:]}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _as_bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")


def move_to_new(file: Path, new: Path) -> None:
    """Moves a file to a name that no other file has, not even one created meanwhile.

    In a bucket it is copied first; there two processes are not told apart.

    Raises:
      FileExistsError: another file has the name.
    """
    if is_url(file):
        if new.exists():
            raise FileExistsError(f"{new} exists")
        new.write_bytes(file.read_bytes())
        file.unlink()
        return
    try:
        os.link(file, new)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(new):
            raise FileExistsError(f"{new} exists") from None
        os.replace(file, new)
    else:
        file.unlink()


def is_url(path: str | os.PathLike) -> bool:
    """Whether this is an address, such as ``gs://…``, which no file system has.

    pathlib makes ``gs:/…`` of it, and would create a directory that is called ``gs:``.
    """
    return re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(path), re.IGNORECASE) is not None


def require_local(path: str | os.PathLike, *, named: str) -> None:
    """Raises ValueError for a URL: what we write needs renames, locks and appends."""
    if is_url(path):
        raise ValueError(
            f"{named} is a URL, not a path on this machine: give one. Only `pnoise train` and "
            "`pnoise evaluate` work in a bucket by its URL; for other programs copy the run with "
            "`gcloud storage cp -r`, or mount the bucket with gcsfuse"
        )


def cache_directory() -> Path:
    """Where this package keeps what can be made again: in $XDG_CACHE_HOME, else in ~/.cache.

    Raises:
      OSError: it is not known where the user's home is.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:
        raise OSError(
            "there is no home directory to keep a cache in: set XDG_CACHE_HOME"
        ) from error
    return home.absolute() / "pnoise_jax"


def make_directory(path: Path, *, named: str) -> Path:
    """Creates a directory and its parents, and checks that files can be written there.

    Args:
      path: of the directory.
      named: what a message calls it, such as ``--out='DIR'``.

    Raises:
      ValueError: it is a URL.
      OSError: it cannot be created or written, or it is a file.
    """
    require_local(path, named=named)
    for place in (path, *path.parents):
        if os.path.lexists(place) and not place.is_dir():
            what = "a file" if place.exists() else "a link that leads nowhere"
            where = "it" if place == path else str(place)
            raise NotADirectoryError(
                f"{named} cannot be written ({where} is {what}): choose another directory"
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{os.getpid()}"
        probe.write_bytes(bytes(4096))  # an empty file fits on a full disk
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"{named} cannot be written ({error.strerror}): choose another directory, or make "
            "this one writable and not full"
        ) from None
    return path


def require_places(
    directory: Path, *, named: str, files: Iterable[str] = (), directories: Iterable[str] = ()
) -> None:
    """Checks that nothing in a directory is in the way of files or directories to be written.

    Args:
      directory: its path.
      named: what a message calls it, such as ``--workdir='DIR'``.
      files: names of files to be written there, or read if they exist.
      directories: names of directories, likewise.

    Raises:
      OSError: something else has such a name, or it cannot be written.
    """
    if is_url(directory):  # where a file and a directory may have the same name
        return
    for name in files:
        place = directory / name
        if os.path.lexists(place) and not place.is_file():
            kind = "a directory" if place.is_dir() else "not a regular file"
            raise OSError(
                f"{named}: {place} is {kind}, and a file of that name is to be written: move it "
                "away, or choose another directory"
            )
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            raise PermissionError(f"{named}: {place} cannot be read and written: change its mode")
    for name in directories:
        place = directory / name
        if os.path.lexists(place) and not place.is_dir():
            raise NotADirectoryError(
                f"{named}: {place} is a file, and a directory of that name is needed: move it "
                "away, or choose another directory"
            )
        if place.exists() and not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"{named}: {place} cannot be read and written: change its mode")


def file_name(text: str, *, longest: int = 100, between: str = "_") -> str:
    """Any text as part of a file name: letters, digits, and a few marks.

    Args:
      text: a name, a description.
      longest: in bytes.
      between: what replaces everything else.
    """
    name = re.sub(r"[^\w.,=()-]+", between, text).strip("._-") or "_"
    return name.encode("utf-8", "replace")[:longest].decode("utf-8", "ignore")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV; text that a spreadsheet would take for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def csv_rows(text: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a table that `csv_text` wrote.

    Raises:
      csv.Error: it is not a table.
    """
    rows = csv.DictReader(text)
    return [{key: _without_apostrophe(value) for key, value in row.items()} for row in rows]


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith((*_FORMULA, "'")) or _is_number(value):
        return value
    return f"'{value}"


def _without_apostrophe(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("'") and value[1:].startswith((*_FORMULA, "'")):
        return value[1:]
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
