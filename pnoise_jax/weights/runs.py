"""Reads the weights that a run of ours has left: the average where it kept one."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from pnoise_jax.weights import checksums
from pnoise_jax.weights.arrays import ArrayFile, Read

_OF_WEIGHTS = ("params/", "batch_stats/")


def open_run(path: Path) -> ArrayFile:
    """Opens the newest checkpoint of a work directory, or the one whose directory is given.

    Only names and shapes are read.

    Raises:
      ValueError: there is none, or it is not one of ours.
    """
    step = _checkpoint(path)
    try:
        arrays = json.loads((step / "arrays" / "metadata").read_text())
        shapes = {name: tuple(shape) for name, (_, shape, _) in arrays.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"is no checkpoint of ours ({step}: {error})") from None
    averaged = any(name.startswith("ema/") for name in shapes)
    prefix = "ema/" if averaged else ""
    ours = {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(tuple(prefix + start for start in _OF_WEIGHTS))
    }

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        restored = _restore(step, {prefix + name: arrays[prefix + name] for name in ours})
        yield lambda name: restored.pop(prefix + name)

    title = f"{'EMA weights' if averaged else 'weights'} of step {step.name}"
    dtypes = {name: arrays[prefix + name][0] for name in ours}
    return ArrayFile(path, "run", title, ours, opened, dtypes, read_config(path).get("model", {}))


def read_config(path: Path) -> dict[str, Any]:
    """The config of the run whose work directory or checkpoint this is; {} if it is not there."""
    step = _checkpoint(path)
    try:
        config = json.loads((step.parent.parent / "config.json").read_text())
        return config if isinstance(config["model"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def fingerprint(path: Path) -> str:
    """What tells the newest checkpoint there from others: a digest of its arrays' checksums."""
    metadata = (_checkpoint(path) / "arrays" / "metadata").read_bytes()
    return hashlib.blake2b(metadata, digest_size=16).hexdigest()


def _checkpoint(path: Path) -> Path:
    """The directory of a checkpoint: this one, or the newest below it."""
    if (path / "state").is_dir():
        return path
    for directory in (path / "checkpoints", path):
        steps = [int(step.name) for step in directory.glob("[0-9]*") if step.name.isdigit()]
        if steps:
            return directory / str(max(steps))
    raise ValueError("is a directory without a checkpoint: give a work directory of a run")


def _restore(step: Path, arrays: dict[str, list]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, on the host, checked."""
    shapes = {
        name: jax.ShapeDtypeStruct(tuple(shape), dtype)
        for name, (dtype, shape, _) in arrays.items()
    }
    wanted = traverse_util.unflatten_dict(shapes, sep="/")
    on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            restored = checkpointer.restore(
                step / "state",
                args=ocp.args.PyTreeRestore(
                    item=wanted, restore_args=on_host, partial_restore=True
                ),
            )
        if checksums.describe(restored) != arrays:
            raise ValueError("its checksums differ")
    except Exception as error:  # whatever is wrong with it
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(
            f"{step} is damaged ({reason}): give the directory of an older checkpoint"
        ) from None
    return traverse_util.flatten_dict(restored, sep="/")
