"""Caches arrays that are expensive to compute, in the user's cache directory."""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pnoise_jax import writing
from pnoise_jax.data import notice

_LOADING = threading.Lock()  # NumPy parses headers with `ast`, not thread-safe in Python 3.11


def cached_path(name: str, files: Iterable[str | os.PathLike]) -> Path:
    """The cache path of an array computed from files; it changes if one of the files does.

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
    """Loads the array in an .npy file; a damaged header cannot make it allocate too much memory.

    Raises:
      OSError, ValueError, EOFError: the file is missing, damaged, or not an .npy file.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")  # reading a pipe would wait forever
    with _LOADING:
        # Memory-mapped, as a damaged header may claim more data than fits in memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an .npz, not a single array")
    return np.array(array)


def remembered(
    path: Path, number: int, compute: Callable[[], np.ndarray], *, axes: int = 1
) -> np.ndarray:
    """The result of `compute`, an integer array (number, ...), cached in a file.

    Args:
      path: from `cached_path`.
      number: the length of the array.
      axes: the number of axes of the array.
      compute: called if the file is missing, damaged, or contains another kind of array.
    """
    try:
        array = load_array(path)
        if array.ndim == axes and len(array) == number and np.issubdtype(array.dtype, np.integer):
            return array
    except (OSError, ValueError, EOFError):
        pass  # missing or damaged: computed again
    array = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = io.BytesIO()
        np.save(encoded, array)
        writing.replace_file(path, encoded.getvalue())
    except OSError as error:  # without a cache, it is only slower
        if number >= notice.MANY:
            notice.tell(
                f"cannot cache {path.name} in {path.parents[1]}, so it is computed again each "
                f"time: {error}"
            )
    return array
