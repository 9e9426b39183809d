"""Opens files of weights. Which format it is, the content says; nothing is ever unpickled."""

import contextlib
import functools
import hashlib
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open

from pnoise_jax.weights import descriptions, runs
from pnoise_jax.weights.arrays import ArrayFile, Read, Shape
from pnoise_jax.weights.errors import begin_with, damaged, found_damaged, shown, weights_at
from pnoise_jax.weights.regular import require_regular

_HEADER = 2**17  # bytes of a member of an npz that are read for its header
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_GIT_LFS = b"version https://"  # git-lfs.github.com/spec/v1
_INDEX = ".safetensors.index.json"
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_TORCH = (
    "is a pickle, as torch.save writes it: loading one runs whatever code it contains, so this is "
    "not done here. Where you trust it, convert it once, with PyTorch:\n"
    "  import torch, safetensors.torch\n"
    "  state = torch.load({path!r}, weights_only=True, map_location='cpu')\n"
    "  safetensors.torch.save_file({{k: v.contiguous() for k, v in state.items()}}, {out!r})\n"
    "(where the state dict lies deeper, take state['model'] or state['state_dict']; "
    "of TorchScript, torch.jit.load({path!r}).state_dict())"
)


def open_file(path: Path) -> ArrayFile:
    """Opens an npz, a safetensors file or the index of several, or a run or checkpoint of ours.

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
        return _open_zip(path)
    if start.startswith(_EMPTY_ZIP):
        raise ValueError("is an empty npz, or another empty archive: it holds no arrays")
    if _is_safetensors(start):
        _refuse_shard(path)
        return _open_safetensors(path, {})
    if shards := _shards(path, start):
        return _open_safetensors(path, shards)
    if start == _GIT_LFS:
        raise ValueError("is a pointer of Git LFS, not the file: run `git lfs pull` where it lies")
    if _is_pickle(path, start):
        raise ValueError(_pickled(path))
    raise ValueError(
        f"is neither an npz nor a safetensors file nor a work directory of ours; it has "
        f"{path.stat().st_size} bytes and starts with {start!r}"
    )


def fingerprint(path: Path) -> str:
    """What tells the weights there from others: a digest of all bytes of the file, or its shards.

    Raises:
      ValueError, OSError: there are none, or they cannot be read.
    """
    with begin_with(weights_at(path), path):
        if path.is_dir():
            return runs.fingerprint(path)
        require_regular(path)
        with path.open("rb") as stream:
            shards = _shards(path, stream.read(16))
        digests = []
        for part in (path, *sorted(set(shards.values()))):
            status = part.stat()
            digests.append(_digest(part, status.st_size, status.st_mtime_ns))
        return "-".join(digests)


@functools.lru_cache(maxsize=64)  # the runs of a sweep start from the same
def _digest(path: Path, size: int, changed: int) -> str:
    del size, changed  # if they differ it is another file
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _open_directory(path: Path) -> ArrayFile:
    inside = {f.name for pattern in (f"*{_INDEX}", "*.safetensors") for f in path.glob(pattern)}
    if inside and not runs.has_checkpoint(path):
        some = sorted(inside, key=lambda name: (not name.endswith(_INDEX), name))[:3]
        raise ValueError(f"is a directory: give the file of weights in it, {' or '.join(some)}")
    return runs.open_run(path)


def _pickled(path: Path) -> str:
    return _TORCH.format(path=str(path), out=f"{path.stem}.safetensors")


def _is_pickle(path: Path, start: bytes) -> bool:
    """Of protocol 2 to 5 (PyTorch before 1.6, and anything), or of 0 and 1, which have no mark."""
    if start[:1] == b"\x80":
        return start[1:2] in (b"\2", b"\3", b"\4", b"\5")
    if start[:1] not in (b"(", b"c", b"]", b"}"):
        return False
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read() == b"."


def _opener(
    kind: str, start: Callable[[contextlib.ExitStack], Read]
) -> Callable[[], contextlib.AbstractContextManager[Read]]:
    """A file's `ArrayFile.open`: what is damaged is a ValueError."""

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        with contextlib.ExitStack() as stack:
            with found_damaged(f"cannot be opened as a {kind} any more"):
                read_raw = start(stack)

            def read(name: str) -> np.ndarray:
                with found_damaged(f"{name} cannot be read from this {kind}"):
                    return read_raw(name)

            yield read

    return opened


def _is_safetensors(start: bytes) -> bool:
    return start[8:9] == b"{"  # after the length of the header, which may begin as a pickle or JSON


def _refuse_shard(path: Path) -> None:
    """Refuses one of several files that a model was divided into, as its name says."""
    shard = re.fullmatch(r"(.*)-0*(\d+)-of-0*(\d+)\.safetensors", path.name)
    if shard and shard[3] != "1":
        raise ValueError(
            f"is shard {shard[2]} of {shard[3]}, a part of the model: give the index of all, "
            f"{shard[1]}{_INDEX}, which lies beside them on the hub"
        )


def _shards(path: Path, start: bytes) -> dict[str, Path]:
    """Which of the files beside it holds which array, as an index of shards says; else {}."""
    if _is_safetensors(start) or not start.lstrip().startswith(b"{"):
        return {}
    names = descriptions.read_json(path).get("weight_map")
    if not isinstance(names, dict):
        return {}
    for array, name in names.items():
        if not isinstance(name, str) or name != Path(name).name:
            raise ValueError(
                f"is an index that has {shown(array)} in {name!r}, which is no file beside it"
            )
        try:
            require_regular(path.parent / name)
        except (OSError, ValueError) as error:
            what = error if isinstance(error, ValueError) else "is not beside it: get it"
            part = shown(name) or "a file without a name"
            raise ValueError(f"is the index of several files, and {part} {what}") from None
    return {array: path.parent / name for array, name in names.items()}


def _open_safetensors(path: Path, shards: Mapping[str, Path]) -> ArrayFile:
    """A file, or the several whose index it is."""
    shapes, dtypes, metadata, where = {}, {}, {}, {}
    for part in sorted(set(shards.values())) or [path]:
        broken = f"is a broken safetensors file{f', {part.name}' if shards else ''}"
        with found_damaged(broken), _safe_open(part) as file:
            # Of an array that lies in several, the one is meant that the index names.
            names = (name for name in file.keys() if shards.get(name, part) == part)  # noqa: SIM118
            slices = {name: file.get_slice(name) for name in names}
            shapes |= {name: tuple(found.get_shape()) for name, found in slices.items()}
            dtypes |= {name: str(found.get_dtype()) for name, found in slices.items()}
            metadata |= file.metadata() or {}
            where |= dict.fromkeys(slices, part)
    if missing := sorted(shards.keys() - where.keys()):
        raise ValueError(
            f"is the index of files without {shown(missing[0])}: get all of them again"
        )

    def start(stack: contextlib.ExitStack) -> Read:
        files = {part: stack.enter_context(_safe_open(part)) for part in set(where.values())}
        return lambda name: files[where[name]].get_tensor(name)

    return ArrayFile(
        path,
        "safetensors",
        "safetensors",
        shapes,
        _opener("safetensors file", start),
        {name: _DTYPES.get(dtype, dtype) for name, dtype in dtypes.items()},
        statements=descriptions.statements_on(path, metadata),
    )


def _safe_open(path: Path) -> safe_open:
    return safe_open(path, framework="numpy", backend="pread")  # mapped, it all counts as memory


def _open_zip(path: Path) -> ArrayFile:
    with found_damaged("is a broken npz"), zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    if any(member.endswith(".pkl") for member in members):
        raise ValueError(_pickled(path))
    if len(set(members)) < len(members):
        twice = next(member for member in members if members.count(member) > 1)
        raise ValueError(
            f"holds {shown(twice)} twice, and it is not known which is meant: save it anew, with "
            "one array of each name"
        )
    if not all(member.endswith(".npy") for member in members):
        raise ValueError("is a zip file, but no npz: it holds more than arrays")
    with zipfile.ZipFile(path) as archive:
        headers = {member.removesuffix(".npy"): _header(archive, member) for member in members}

    def start(stack: contextlib.ExitStack) -> Read:
        stream = stack.enter_context(path.open("rb"))  # numpy leaves that of a broken file open
        return stack.enter_context(np.load(stream, allow_pickle=False)).__getitem__

    return ArrayFile(
        path,
        "npz",
        "npz",
        {name: shape for name, (shape, _) in headers.items()},
        _opener("npz", start),
        {name: dtype for name, (_, dtype) in headers.items()},
    )


def _header(archive: zipfile.ZipFile, member: str) -> tuple[Shape, str]:
    """Shape and dtype of an array in an npz."""
    try:
        with archive.open(member) as packed:
            stream = io.BytesIO(packed.read(_HEADER))  # however long it says it is
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(stream)
            size = stream.tell() + math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and archive.getinfo(member).file_size != size:
                raise ValueError(
                    f"by its header it has {size} bytes, and by the archive "
                    f"{archive.getinfo(member).file_size}"
                )
    except (ValueError, KeyError, RuntimeError) as error:  # or encrypted, or packed otherwise
        raise ValueError(
            f"holds {shown(member)}, which is no array as numpy.savez writes it "
            f"({shown(str(error))}): get the file again, or save it anew"
        ) from None
    except Exception as error:  # each compression has its own
        raise damaged(f"is a broken npz, {shown(member)}", error) from None
    if dtype.hasobject:
        raise ValueError(
            f"holds pickled objects ({shown(member)}), and loading them runs whatever code they "
            "contain: save it with plain arrays, one for each parameter"
        )
    bfloat16 = dtype.str[1:] == "V2" and dtype.names is None
    return shape, "bfloat16" if bfloat16 else dtype.name
