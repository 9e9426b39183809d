"""Reads the weights of a run: the moving average, if the run kept one."""

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax.runs import RunDirectory, stored_arrays
from pnoise_jax.weights.errors import naming_damage
from pnoise_jax.weights.formats import task_parts
from pnoise_jax.weights.formats.array_file import ArrayFile, Format, Read
from pnoise_jax.weights.formats.json_files import read_json
from pnoise_jax.weights.formats.regular_file import require_regular

_OF_WEIGHTS = ("params/", "batch_stats/")
_AT_ONCE = 2**25  # bytes of neighbouring arrays to restore in one call


def open_run(path: Path) -> ArrayFile:
    """Opens the newest checkpoint of a work directory, or the checkpoint at the path.

    Only names, shapes and the step are read. Changes that an adaptation task has made to the model
    are undone if possible: see `task_parts.as_plain_model`.

    Raises:
      ValueError: there is no checkpoint, this package did not write it, its directory's number is
        not its step, or its task has changed the model in a way that cannot be undone.
      OSError: it cannot be read.
    """
    step = _checkpoint(path)
    metadata = _metadata(step)
    try:
        arrays = json.loads(metadata)
        prefix = "ema/" if any(name.startswith("ema/") for name in arrays) else ""
        collections = tuple(prefix + name for name in _OF_WEIGHTS)
        task_arrays = prefix + "params/task/"  # such as a discriminator: not part of the model
        ours = {
            name: arrays[name]
            for name in sorted(arrays)
            if name.startswith(collections) and not name.startswith(task_arrays)
        }
        shapes = {name: tuple(map(int, shape)) for name, (_, shape, _) in ours.items()}
        dtypes = {name: np.dtype(dtype).name for name, (dtype, _, _) in ours.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"is not a checkpoint of this package ({step}: {error})") from None

    _require_number(step, arrays)

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        read = _reader(step, ours)
        yield lambda name: read(prefix + name)

    file = ArrayFile(
        path,
        Format.RUN,
        f"{'EMA weights' if prefix else 'weights'} of step {step.name}",
        {name.removeprefix(prefix): shape for name, shape in shapes.items()},
        opened,
        {name.removeprefix(prefix): dtype for name, dtype in dtypes.items()},
        read_config(path).get("model", {}),
        class_names=class_names(path),
    )
    return task_parts.as_plain_model(file, task_name(path))


def _require_number(step: Path, arrays: dict[str, list]) -> None:
    """Raises ValueError if the number of a checkpoint's directory is not its step."""
    if not step.name.isdecimal() or "step" not in arrays:
        return
    inside = int(_restore(step, {"step": arrays["step"]})["step"])
    if inside != int(step.name):
        raise ValueError(
            f"has a checkpoint under the number {step.name} that is of step {inside} ({step}): it "
            "was copied or renamed; delete it, or give the path of another checkpoint"
        )


def _reader(step: Path, arrays: dict[str, list]) -> Read:
    """Reads arrays of a checkpoint, each together with the next ones, up to `_AT_ONCE` bytes."""
    names, restored = list(arrays), {}

    def read(name: str) -> np.ndarray:
        if name not in restored:
            restored.clear()
            restored.update(_restore(step, _first(_AT_ONCE, names[names.index(name) :], arrays)))
        return restored.pop(name)

    return read


def _first(size: int, names: list[str], arrays: dict[str, list]) -> dict[str, list]:
    """The first of these arrays, and the next ones up to `size` bytes in total."""
    dtypes_and_shapes = (arrays[name][:2] for name in names)
    sizes = (math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in dtypes_and_shapes)
    number = sum(total <= size for total in itertools.accumulate(sizes))
    return {name: arrays[name] for name in names[: max(1, number)]}


def read_config(path: Path) -> dict[str, Any]:
    """The config of the run at this work directory or checkpoint; {} if there is none."""
    config = read_json(_run(path).config)
    return config if isinstance(config.get("model"), dict) else {}


def task_name(path: Path) -> str | None:
    """The task of the run at this work directory or checkpoint; None if it is unknown."""
    task = read_config(path).get("task")
    name = task.get("name") if isinstance(task, dict) else None
    return name if isinstance(name, str) else None


def class_names(path: Path) -> tuple[str, ...] | None:
    """The classes of the run at this work directory or checkpoint; None if it recorded none."""
    names = read_json(_run(path).data).get("class_names")
    if not isinstance(names, list) or not names:
        return None
    return tuple(names) if all(isinstance(name, str) for name in names) else None


def fingerprint(path: Path) -> str:
    """A digest of the checksums of the newest checkpoint's arrays, which identifies it."""
    return hashlib.blake2b(_metadata(_checkpoint(path)), digest_size=16).hexdigest()


def _metadata(step: Path) -> bytes:
    """The stored description of a checkpoint's arrays, as JSON."""
    try:
        file = stored_arrays.description_file(step)
        require_regular(file)
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"is not a checkpoint of this package ({step}: {error})") from None


def has_checkpoint(path: Path) -> bool:
    """Whether a directory is a checkpoint or contains one."""
    return stored_arrays.find_checkpoint(path) is not None


def _run(path: Path) -> RunDirectory:
    return RunDirectory(_checkpoint(path).parent.parent)


def _checkpoint(path: Path) -> Path:
    step = stored_arrays.find_checkpoint(path)
    if step is None:
        raise ValueError("is a directory without a checkpoint: give the work directory of a run")
    return step


def _restore(step: Path, arrays: dict[str, list]) -> dict[str, np.ndarray]:
    with naming_damage(f"{step} is damaged", fix="give the path of an older checkpoint"):
        return stored_arrays.restore_arrays(step, arrays)
