"""Opens npz files, as numpy.savez writes them, and reads their headers."""

import contextlib
import io
import math
import zipfile
from pathlib import Path

import numpy as np

from pnoise_jax.weights.errors import damage_error, naming_damage, printable_name
from pnoise_jax.weights.formats.array_file import ArrayFile, Format, Read, Shape, opener
from pnoise_jax.weights.formats.pickles import refusal

_MAX_HEADER = 2**17  # bytes of a member to read for its header


def open_npz(path: Path) -> ArrayFile:
    """Opens a zip archive of arrays.

    Raises:
      ValueError: it is damaged, ambiguous, not an npz, or contains pickled objects.
    """
    with naming_damage("is a broken npz"), zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    if any(member.endswith(".pkl") for member in members):
        raise ValueError(refusal(path))
    if len(set(members)) < len(members):
        twice = next(member for member in members if members.count(member) > 1)
        raise ValueError(
            f"contains {printable_name(twice)} twice, and nothing tells which one is meant: save "
            "it again with one array for each name"
        )
    if not all(member.endswith(".npy") for member in members):
        raise ValueError("is a zip file but not an npz: it contains more than arrays")
    with zipfile.ZipFile(path) as archive:
        headers = {member.removesuffix(".npy"): _header(archive, member) for member in members}

    def start(stack: contextlib.ExitStack) -> Read:
        stream = stack.enter_context(path.open("rb"))  # numpy leaves a broken file's stream open
        return stack.enter_context(np.load(stream, allow_pickle=False)).__getitem__

    return ArrayFile(
        path,
        Format.NPZ,
        "npz",
        {name: shape for name, (shape, _) in headers.items()},
        opener("npz", start),
        {name: dtype for name, (_, dtype) in headers.items()},
    )


def _header(archive: zipfile.ZipFile, member: str) -> tuple[Shape, str]:
    """Shape and dtype of an array in an npz."""
    try:
        shape, dtype = _read_header(archive, member)
    except (ValueError, KeyError, RuntimeError) as error:  # also if encrypted or unsupported
        raise ValueError(
            f"contains {printable_name(member)}, which is not an array as numpy.savez writes it "
            f"({printable_name(str(error))}): download or copy the file again, or save it again"
        ) from error
    except Exception as error:  # each decompressor has its own errors
        raise damage_error(f"is a broken npz, {printable_name(member)}", error) from error
    if dtype.hasobject:
        raise ValueError(
            f"contains pickled objects ({printable_name(member)}), and loading them runs any code "
            "in them: save it with plain arrays, one for each parameter"
        )
    is_bfloat16 = dtype.str[1:] == "V2" and dtype.names is None
    return shape, "bfloat16" if is_bfloat16 else dtype.name


def _read_header(archive: zipfile.ZipFile, member: str) -> tuple[Shape, np.dtype]:
    with archive.open(member) as packed:
        stream = io.BytesIO(packed.read(_MAX_HEADER))  # even if it claims to be longer
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(stream)
    size = stream.tell() + math.prod(shape) * dtype.itemsize
    stored = archive.getinfo(member).file_size
    if not dtype.hasobject and stored != size:
        raise ValueError(f"its header says {size} bytes, the archive says {stored}")
    return shape, dtype
