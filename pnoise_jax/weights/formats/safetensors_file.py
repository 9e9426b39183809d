"""Opens safetensors: one file, or several and their index."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

from pnoise_jax.weights.errors import naming_damage, printable_name
from pnoise_jax.weights.formats.array_file import ArrayFile, Format, Read, opener
from pnoise_jax.weights.formats.json_files import read_json
from pnoise_jax.weights.formats.model_info import read_model_info
from pnoise_jax.weights.formats.regular_file import require_regular

INDEX = ".safetensors.index.json"
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def is_safetensors(start: bytes) -> bool:
    """Whether a file starts like safetensors: 8 bytes for the header's length, then JSON."""
    return start[8:9] == b"{"  # the length itself may look like a pickle or JSON


def refuse_shard(path: Path) -> None:
    """Raises ValueError for one of several files of a model, recognised by its name."""
    shard = re.fullmatch(r"(.*)-0*(\d+)-of-0*(\d+)\.safetensors", path.name)
    if shard and shard[3] != "1":
        raise ValueError(
            f"is shard {shard[2]} of {shard[3]}, a part of the model: give the index of all "
            f"shards, {shard[1]}{INDEX}, which is in the same directory on the hub"
        )


def read_index(path: Path, start: bytes) -> dict[str, Path]:
    """The file that contains each array of an index; {} if the file is not an index.

    Raises:
      ValueError: the index names files that are missing or in another directory.
    """
    if is_safetensors(start) or not start.lstrip().startswith(b"{"):
        return {}
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict):
        return {}
    for array, name in names.items():
        if not isinstance(name, str) or name != Path(name).name:
            raise ValueError(
                f"is an index that has {printable_name(array)} in {name!r}, which is not a file "
                "beside it"
            )
        try:
            require_regular(path.parent / name)
        except (OSError, ValueError) as error:
            what = error if isinstance(error, ValueError) else "is not beside it: download it too"
            part = printable_name(name) or "a file without a name"
            raise ValueError(f"is the index of several files, and {part} {what}") from error
    return {array: path.parent / name for array, name in names.items()}


def open_safetensors(path: Path, shards: Mapping[str, Path]) -> ArrayFile:
    """Opens a file, or the files that an index lists.

    Args:
      path: the path of the file or the index.
      shards: the file of each array of an index; {} for a single file.

    Raises:
      ValueError: a file is damaged or lacks an array of the index.
    """
    dtypes: dict[str, str] = {}
    shapes, metadata, part_of = {}, {}, {}
    for part in sorted(set(shards.values())) or [path]:
        broken = f"is a broken safetensors file{f', {part.name}' if shards else ''}"
        with naming_damage(broken), _safe_open(part) as file:
            # If several files contain an array, use the file that the index names.
            names = (name for name in file.keys() if shards.get(name, part) == part)  # noqa: SIM118
            slices = {name: file.get_slice(name) for name in names}
            shapes |= {name: tuple(array.get_shape()) for name, array in slices.items()}
            dtypes |= {name: str(array.get_dtype()) for name, array in slices.items()}
            metadata |= file.metadata() or {}
            part_of |= dict.fromkeys(slices, part)
    if missing := sorted(shards.keys() - part_of.keys()):
        raise ValueError(
            f"is the index of files that lack {printable_name(missing[0])}: download all of them "
            "again"
        )

    def start(stack: contextlib.ExitStack) -> Read:
        files = {part: stack.enter_context(_safe_open(part)) for part in set(part_of.values())}
        return lambda name: files[part_of[name]].get_tensor(name)

    return ArrayFile(
        path,
        Format.SAFETENSORS,
        "safetensors",
        shapes,
        opener("safetensors file", start),
        {name: _DTYPES.get(dtype, dtype) for name, dtype in dtypes.items()},
        model_info=read_model_info(path, metadata),
    )


def _safe_open(path: Path) -> safe_open:
    # A memory map of the file would count as this process's memory.
    return safe_open(path, framework="numpy", backend="pread")
