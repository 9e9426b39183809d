"""Files that are written completely or not at all, and checks of paths before long work."""

import contextlib
import csv
import errno
import io
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file, or an object in a bucket, completely or not at all.

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
    """Yields a temporary file next to ``path`` that replaces it once the block has written it.

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
    """Yields a temporary file next to ``path`` that gets this name once the block has written it.

    Raises:
      FileExistsError: another file has the name by then.
      OSError: it cannot be written.
    """
    with _temporary(path) as temporary:
        yield temporary
        move_to_new(temporary, path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yields a unique name next to ``path``; deletes any file left there at the end."""
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

    In a bucket, the name is checked before the file is copied, so a file that another process
    creates in between is replaced.

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
    """Whether this is a URL, such as ``gs://…``, not a path in a file system.

    pathlib turns it into ``gs:/…``, and would create a directory called ``gs:``.
    """
    return re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(path), re.IGNORECASE) is not None


def require_local(path: str | os.PathLike, *, named: str) -> None:
    """Raises ValueError for a URL: our writes need renames, locks and appends."""
    if is_url(path):
        raise ValueError(
            f"{named} is a URL, not a path on this machine: give a local path. Only `pnoise "
            "train` and `pnoise evaluate` accept the URL of a bucket; for other programs, copy the "
            "run with `gcloud storage cp -r`, or mount the bucket with gcsfuse"
        )


def cache_directory() -> Path:
    """The directory for files that can be recreated: in $XDG_CACHE_HOME, else in ~/.cache.

    Raises:
      OSError: the user's home directory is unknown.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:
        raise OSError("there is no home directory for the cache: set XDG_CACHE_HOME") from error
    return home.absolute() / "pnoise_jax"


def make_directory(path: Path, *, named: str) -> Path:
    """Creates a directory and its parents, and checks that files can be written there.

    Args:
      path: the directory.
      named: how messages refer to it, such as ``--out='DIR'``.

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
        kind = (
            PermissionError if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else OSError
        )
        raise kind(
            f"{named} cannot be written ({error.strerror}): choose another directory, or make "
            "this one writable, with free space"
        ) from None
    return path


def require_places(
    directory: Path, *, named: str, files: Iterable[str] = (), directories: Iterable[str] = ()
) -> None:
    """Checks that nothing in a directory blocks the files or directories to be written there.

    Args:
      directory: its path.
      named: how messages refer to it, such as ``--workdir='DIR'``.
      files: names of files to be written there, or read if they exist.
      directories: names of directories, likewise.

    Raises:
      OSError: something of another kind has such a name, or it cannot be read and written.
    """
    if is_url(directory):  # in a bucket, a file and a directory can have the same name
        return
    for name in files:
        place = directory / name
        if os.path.lexists(place) and not place.is_file():
            is_directory = place.is_dir()
            kind = "a directory" if is_directory else "not a regular file"
            raise (IsADirectoryError if is_directory else OSError)(
                f"{named}: {place} is {kind}, but a file of that name must be written: move it "
                "away, or choose another directory"
            )
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            raise PermissionError(f"{named}: {place} cannot be read and written: change its mode")
    for name in directories:
        place = directory / name
        if os.path.lexists(place) and not place.is_dir():
            raise NotADirectoryError(
                f"{named}: {place} is a file, but a directory of that name is needed: move it "
                "away, or choose another directory"
            )
        if place.exists() and not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"{named}: {place} cannot be read and written: change its mode")


def require_file_place(file: Path, *, named: str) -> None:
    """Checks, before long work, that a file can be written.

    Args:
      file: its path.
      named: how messages refer to it, such as ``--out='FILE'``.

    Raises:
      ValueError: it is a URL.
      OSError: its directory does not exist or is not writable, or something blocks the file.
    """
    require_local(file, named=named)
    directory = file.absolute().parent
    if not directory.is_dir():
        raise NotADirectoryError(
            f"{named}: there is no directory {str(directory)!r}: create it, or name another file"
        )
    require_places(directory, named=named, files=(file.name,))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{named}: the directory {str(directory)!r} is not writable: change its mode, or name "
            "another file"
        )


@contextlib.contextmanager
def removing_empty(directory: Path) -> Iterator[None]:
    """If the block fails, removes this directory and its parents where it created them empty.

    A program can then check early that it can write there, and leaves nothing behind on an error.
    """
    missing = [] if is_url(directory) else [directory, *directory.parents]
    missing = [place for place in missing if not os.path.lexists(place)]
    try:
        yield
    except BaseException:
        for place in missing:
            with contextlib.suppress(OSError):  # it was not created, or has content
                place.rmdir()
        raise


def file_name(text: str, *, longest: int = 100, between: str = "_") -> str:
    """Turns any text into part of a file name: letters, digits and a few punctuation marks.

    Args:
      text: a name or a description.
      longest: the maximum length, in bytes.
      between: replaces everything else.
    """
    name = re.sub(r"[^\w.,=()-]+", between, text).strip("._-") or "_"
    return name.encode("utf-8", "replace")[:longest].decode("utf-8", "ignore")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV; text that a spreadsheet would read as a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def csv_rows(text: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a table that `csv_text` wrote.

    Raises:
      csv.Error: the text is not a table.
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
