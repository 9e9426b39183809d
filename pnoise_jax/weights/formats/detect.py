"""Opens files of weights and detects their format from the content; nothing is ever unpickled."""

import functools
import hashlib
from pathlib import Path

from pnoise_jax.weights.errors import naming_path, weights_field
from pnoise_jax.weights.formats import pickles, places, run_weights
from pnoise_jax.weights.formats.array_file import ArrayFile
from pnoise_jax.weights.formats.npz import open_npz
from pnoise_jax.weights.formats.regular_file import require_regular
from pnoise_jax.weights.formats.safetensors_file import (
    INDEX,
    is_safetensors,
    open_safetensors,
    read_index,
    refuse_shard,
)

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_GIT_LFS = b"version https://"  # git-lfs.github.com/spec/v1


def open_file(path: Path) -> ArrayFile:
    """Opens an npz, a safetensors file, a safetensors index, or a run or checkpoint.

    Only names and shapes are read.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is none of these, it is truncated, or it contains pickled objects.
    """
    if path.is_dir():
        return _open_directory(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    require_regular(path)
    with path.open("rb") as stream:
        start = stream.read(16)
    if start.startswith(_ZIP):
        return open_npz(path)
    if start.startswith(_EMPTY_ZIP):
        raise ValueError("is an empty npz, or another empty archive: it contains no arrays")
    if is_safetensors(start):
        refuse_shard(path)
        return open_safetensors(path, {})
    if shards := read_index(path, start):
        return open_safetensors(path, shards)
    if start == _GIT_LFS:
        raise ValueError("is a Git LFS pointer, not the file: run `git lfs pull` in its directory")
    if pickles.is_pickle(path, start):
        raise ValueError(pickles.refusal(path))
    raise ValueError(
        "is neither an npz nor a safetensors file nor a work directory of a run; it has "
        f"{path.stat().st_size} bytes and starts with {start!r}"
    )


def fingerprint(weights: str | Path) -> str:
    """A digest that identifies weights: of all bytes of files, or of a run's stored checksums.

    Args:
      weights: a file, the index of several, a run, an id of the Hugging Face hub, or a gs:// URL.

    Raises:
      ValueError, OSError: there are no such weights, or they cannot be read.
    """
    path = places.local_path(weights)
    with naming_path(weights_field(weights), path):
        if path.is_dir():
            return run_weights.fingerprint(path)
        require_regular(path)
        with path.open("rb") as stream:
            shards = read_index(path, stream.read(16))
        digests = []
        for part in (path, *sorted(set(shards.values()))):
            status = part.stat()
            digests.append(_digest(part, status.st_size, status.st_mtime_ns))
        return "-".join(digests)


@functools.lru_cache(maxsize=64)  # the runs of a sweep start from the same weights
def _digest(path: Path, size: int, changed: int) -> str:
    del size, changed  # only part of the cache key: if they differ, the file is another one
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _open_directory(path: Path) -> ArrayFile:
    inside = {f.name for pattern in (f"*{INDEX}", "*.safetensors") for f in path.glob(pattern)}
    if inside and not run_weights.has_checkpoint(path):
        some = sorted(inside, key=lambda name: (not name.endswith(INDEX), name))[:3]
        raise ValueError(f"is a directory: give a file of weights in it, {' or '.join(some)}")
    return run_weights.open_run(path)
