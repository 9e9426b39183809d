"""Opens files of weights. Which format it is, the content says; nothing is ever unpickled."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pnoise_jax.weights.arrays import ArrayFile, Read, Shape
from pnoise_jax.weights.runs import open_run

_ZIP = b"PK\x03\x04"
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError)
_PICKLE = b"\x80"  # protocol 2 and later: PyTorch before 1.6, and pickles of anything
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
        return open_run(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as stream:
        start = stream.read(16)
    if start.startswith(_ZIP):
        return _open_zip(path)
    if start.startswith(_PICKLE):
        raise ValueError(_TORCH.format(path=path, stem=path.stem))
    if start[8:9] == b"{":  # after the length of the header, its JSON
        return _open_safetensors(path)
    raise ValueError(
        f"is neither an npz nor a safetensors file nor a work directory of ours; it has "
        f"{path.stat().st_size} bytes and starts with {start!r}"
    )


def _open_safetensors(path: Path) -> ArrayFile:
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"is a broken safetensors file ({error}): get it again, the download was cut off"
        ) from None

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        with safe_open(path, framework="numpy") as file:
            yield file.get_tensor

    return ArrayFile(path, "safetensors", "safetensors", shapes, opened)


def _open_zip(path: Path) -> ArrayFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if any(member.endswith(".pkl") for member in members):
                raise ValueError(_TORCH.format(path=path, stem=path.stem))
            if not all(member.endswith(".npy") for member in members):
                raise ValueError("is a zip file, but no npz: it holds more than arrays")
            shapes = {member.removesuffix(".npy"): _shape(archive, member) for member in members}
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

    return ArrayFile(path, "npz", "npz", shapes, opened)


def _shape(archive: zipfile.ZipFile, member: str) -> Shape:
    """From the header of an array in an npz."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is None:
            raise ValueError(f"holds {member} in version {version} of numpy's format: save it anew")
        shape, _, dtype = header(stream)
    if dtype.hasobject:
        raise ValueError(
            f"holds pickled objects ({member}), and loading them runs whatever code they contain: "
            "save it with plain arrays, one for each parameter"
        )
    return shape
