"""The directory where data sets are kept: found, made, and checked to be writable."""

import os
import tempfile
from pathlib import Path

from pnoise_jax import writing


def resolve(data_dir: str | os.PathLike | None, *, field: str = "data.data_dir") -> Path | str:
    """Where data sets are kept: as given, $TFDS_DATA_DIR, or TFDS's default.

    Args:
      data_dir: None: it is not given.
      field: what the user sets it with.

    Returns:
      The path of a directory, or a URL, as a string.

    Raises:
      ValueError: it is empty.
    """
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if not os.fspath(data_dir):  # a shell's variable that is not set; not the working directory
        raise ValueError(f"{field}='' is empty: give a directory, or leave it out")
    if writing.is_url(data_dir):
        return os.fspath(data_dir)
    return Path(data_dir).expanduser().absolute()


def resolve_local(data_dir: str | os.PathLike | None, *, field: str = "data.data_dir") -> Path:
    """As `resolve`, where data sets are written.

    Raises:
      ValueError: it is a URL, or empty.
    """
    place = resolve(data_dir, field=field)
    if isinstance(place, str):
        raise ValueError(
            f"{set_with(data_dir, field)}={place!r} is a URL, and data sets are prepared in a "
            f"directory: give one with {field}, and copy what is prepared there with `gcloud "
            "storage cp -r`"
        )
    return place


def set_with(data_dir: str | os.PathLike | None, field: str = "data.data_dir") -> str:
    """What the place of the data sets was set with, for messages: the field, or TFDS's variable."""
    is_by_variable = data_dir is None and os.environ.get("TFDS_DATA_DIR")
    return "TFDS_DATA_DIR" if is_by_variable else field


def make_staging(data_dir: Path, name: str, *, field: str = "data.data_dir") -> Path:
    """Makes the directory, not its parents, and an empty `incomplete.<name>.*` in it.

    Raises:
      OSError: there is no directory to make it in, it is a file, or it cannot be made or written.
    """
    if not data_dir.parent.is_dir():
        raise FileNotFoundError(
            f"{field}={str(data_dir)!r}: {str(data_dir.parent)!r} does not exist. "
            f"Create it, or set {field} (or TFDS_DATA_DIR) to where data sets are kept."
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
            f"{field}={str(data_dir)!r} cannot be written ({error.strerror}), and "
            f"{name!r} is not prepared there. Make it writable, or set {field} to another "
            "directory."
        ) from error
