"""The directory that contains the data sets: resolved, created, and checked to be writable."""

import os
import tempfile
from pathlib import Path

from pnoise_jax import writing


def resolve(data_dir: str | os.PathLike | None, *, field: str = "data.data_dir") -> Path | str:
    """The directory of the data sets: `data_dir`, else $TFDS_DATA_DIR, else TFDS's default.

    Args:
      data_dir: a directory or a URL; None if the user did not set one.
      field: the field that the user sets it with, for error messages.

    Returns:
      The absolute path of a directory, or a URL as a string.

    Raises:
      ValueError: it is empty.
    """
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if not os.fspath(data_dir):  # an unset shell variable; must not mean the current directory
        raise ValueError(f"{field}='' is empty: give a directory, or leave it out")
    if writing.is_url(data_dir):
        return os.fspath(data_dir)
    return Path(data_dir).expanduser().absolute()


def resolve_local(data_dir: str | os.PathLike | None, *, field: str = "data.data_dir") -> Path:
    """As `resolve`, for a directory to write to.

    Raises:
      ValueError: it is a URL, or empty.
    """
    place = resolve(data_dir, field=field)
    if isinstance(place, str):
        raise ValueError(
            f"{set_with(data_dir, field)}={place!r} is a URL, but data sets are prepared in a "
            f"local directory: set one with {field}, then copy the result with `gcloud storage cp "
            "-r`"
        )
    return place


def set_with(data_dir: str | os.PathLike | None, field: str = "data.data_dir") -> str:
    """What set the directory, for messages: the config field, or the variable TFDS_DATA_DIR."""
    is_by_variable = data_dir is None and os.environ.get("TFDS_DATA_DIR")
    return "TFDS_DATA_DIR" if is_by_variable else field


def make_staging(data_dir: Path, name: str, *, field: str = "data.data_dir") -> Path:
    """Creates an empty directory `incomplete.<name>.*` in `data_dir`, which is created if missing.

    Raises:
      OSError: the parent of `data_dir` does not exist, or `data_dir` is a file, cannot be created,
        or is not writable.
    """
    if not data_dir.parent.is_dir():
        raise FileNotFoundError(
            f"{field}={str(data_dir)!r}: {str(data_dir.parent)!r} does not exist. "
            f"Create it, or set {field} (or TFDS_DATA_DIR) to the directory of your data sets."
        )
    if data_dir.exists() and not data_dir.is_dir():
        raise NotADirectoryError(
            f"{field}={str(data_dir)!r} is a file. Set {field} to a directory."
        )
    try:
        data_dir.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"incomplete.{name.replace('/', '.')}.", dir=data_dir))
    except OSError as error:
        raise OSError(
            f"{field}={str(data_dir)!r} cannot be written ({error.strerror}), so {name!r} cannot "
            f"be prepared there. Make it writable, or set {field} to another directory."
        ) from error
