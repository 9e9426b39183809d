"""Arrays that are costly to compute, kept in the user's cache."""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pnoise_jax import writing
from pnoise_jax.data import notice

_LOADING = threading.Lock()  # NumPy parses headers by `ast`, which fails in threads in Python 3.11


def cached_path(name: str, files: Iterable[str | os.PathLike]) -> Path:
    """Where an array that was computed from files is kept; changes when one of the files does.

    Raises:
      OSError: one of the files is missing.
    """
    stamps = hashlib.sha256()
    for file in files:
        status = os.stat(file)
        stamp = f"{os.path.realpath(file)} {status.st_size} {status.st_mtime_ns}\n"
        stamps.update(stamp.encode(errors="surrogateescape"))
    return writing.cache_directory() / stamps.hexdigest()[:24] / f"{name}.npy"


def load_array(path: Path) -> np.ndarray:
    """The array in an .npy file, of which no more is read than the file has.

    Raises:
      OSError, ValueError, EOFError: there is none, or it is broken or of another kind.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")  # a pipe would wait for ever
    with _LOADING:
        # Mapped, as a broken header may ask for more than there is memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an .npz, and not a single array")
    return np.array(array)


def remembered(
    path: Path, number: int, compute: Callable[[], np.ndarray], *, axes: int = 1
) -> np.ndarray:
    """What `compute` gives, (number, ...) integers; from the cache if they are there.

    Args:
      path: from `cached_path`.
      number: of values.
      axes: of the array.
      compute: is called if there is no such file, or a broken one.
    """
    try:
        array = load_array(path)
        if array.ndim == axes and len(array) == number and np.issubdtype(array.dtype, np.integer):
            return array
    except (OSError, ValueError, EOFError):
        pass  # there is none, or a broken one: it is computed again
    array = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = io.BytesIO()
        np.save(encoded, array)
        writing.replace_file(path, encoded.getvalue())
    except OSError as error:  # it is only slower without
        if number >= notice.MANY:
            notice.tell(
                f"cannot remember {path.name} in {path.parents[1]}, so it is read anew each time: "
                f"{error}"
            )
    return array
