"""Opens files of weights. Which format it is, the content says; nothing is ever unpickled."""

import contextlib
import functools
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pnoise_jax.weights import runs
from pnoise_jax.weights.arrays import ArrayFile, Read, Shape

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError)
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_TORCH = (
    "is a pickle, as torch.save writes it: loading one runs whatever code it contains, so this is "
    "not done here. Where you trust it, convert it once, with PyTorch:\n"
    "  import torch, safetensors.torch\n"
    "  state = torch.load('{path}', weights_only=True, map_location='cpu')\n"
    "  safetensors.torch.save_file({{k: v.contiguous() for k, v in state.items()}}, "
    "'{stem}.safetensors')\n"
    "(where the state dict lies deeper, take state['model'] or state['state_dict'])"
)


def open_file(path: Path) -> ArrayFile:
    """Opens an npz, a safetensors file, or a work directory or checkpoint of ours.

    Only names and shapes are read.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is neither of these, it is truncated, or it contains pickled objects.
    """
    if path.is_dir():
        return runs.open_run(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as stream:
        start = stream.read(16)
    if start.startswith(_ZIP):
        return _open_zip(path)
    if start.startswith(_EMPTY_ZIP):
        raise ValueError("is an empty npz, or another empty archive: it holds no arrays")
    if start[8:9] == b"{":  # after the length of the header, which may begin as a pickle, its JSON
        return _open_safetensors(path)
    if _is_pickle(path, start):
        raise ValueError(_TORCH.format(path=path, stem=path.stem))
    raise ValueError(
        f"is neither an npz nor a safetensors file nor a work directory of ours; it has "
        f"{path.stat().st_size} bytes and starts with {start!r}"
    )


def fingerprint(path: Path) -> str:
    """What tells the weights there from others: a digest of all bytes of the file.

    Raises:
      ValueError, OSError: there are none.
    """
    if path.is_dir():
        return runs.fingerprint(path)
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)  # the runs of a sweep start from the same
def _digest(path: Path, size: int, changed: int) -> str:
    del size, changed  # if they differ it is another file
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _is_pickle(path: Path, start: bytes) -> bool:
    """Of protocol 2 to 5 (PyTorch before 1.6, and anything), or of 0 and 1, which have no mark."""
    if start[:1] == b"\x80":
        return start[1:2] in (b"\2", b"\3", b"\4", b"\5")
    if start[:1] not in (b"(", b"c", b"]", b"}"):
        return False
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read() == b"."


def _open_safetensors(path: Path) -> ArrayFile:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(found.get_shape()) for name, found in slices.items()}
            dtypes = {name: str(found.get_dtype()) for name, found in slices.items()}
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"is a broken safetensors file ({error}): get it again, the download was cut off"
        ) from None

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        with safe_open(path, framework="numpy") as file:
            yield file.get_tensor

    dtypes = {name: _DTYPES.get(dtype, dtype) for name, dtype in dtypes.items()}
    options = _options(metadata)
    return ArrayFile(path, "safetensors", "safetensors", shapes, opened, dtypes, options, metadata)


def _options(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The options of our model, where `launch.export` has written the file."""
    try:
        options = json.loads(metadata["pnoise_jax.model"])
    except (KeyError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def _open_zip(path: Path) -> ArrayFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if any(member.endswith(".pkl") for member in members):
                raise ValueError(_TORCH.format(path=path, stem=path.stem))
            if not all(member.endswith(".npy") for member in members):
                raise ValueError("is a zip file, but no npz: it holds more than arrays")
            headers = {member.removesuffix(".npy"): _header(archive, member) for member in members}
    except _BROKEN_ZIP as error:
        raise ValueError(
            f"is a broken npz ({error}): get it again, the download was cut off"
        ) from None

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        try:
            with np.load(path, allow_pickle=False) as file:
                yield file.__getitem__
        except _BROKEN_ZIP as error:
            raise ValueError(f"a broken npz ({error}): get it again") from None

    shapes = {name: shape for name, (shape, _) in headers.items()}
    dtypes = {name: dtype for name, (_, dtype) in headers.items()}
    return ArrayFile(path, "npz", "npz", shapes, opened, dtypes)


def _header(archive: zipfile.ZipFile, member: str) -> tuple[Shape, str]:
    """Shape and dtype of an array in an npz."""
    with archive.open(member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(stream)
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"holds {member}, which is no array as numpy.savez writes it ({error}): get the "
                "file again, or save it anew"
            ) from None
    if dtype.hasobject:
        raise ValueError(
            f"holds pickled objects ({member}), and loading them runs whatever code they contain: "
            "save it with plain arrays, one for each parameter"
        )
    return shape, "bfloat16" if dtype.str[1:] == "V2" else dtype.name
