"""Reads arrays of a checkpoint by name, to the host, without the program that saved them."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from pnoise_jax.runs import checksums
from pnoise_jax.runs.layout import RunDirectory, checkpoint_steps


def find_checkpoint(path: Path) -> Path | None:
    """The directory of a checkpoint: `path` itself, or the newest one in this work directory.

    `path` may also be a directory of checkpoints. None if there is no checkpoint.
    """
    path = path.absolute()  # Orbax requires absolute paths
    if (path / "state").is_dir():
        return path
    for directory in (RunDirectory(path).checkpoints, path):
        steps = checkpoint_steps(directory)
        if steps:
            return steps[max(steps)]
    return None


def description_file(checkpoint: Path) -> Path:
    """The JSON file with each array's dtype, shape and checksum, from `checksums.describe`."""
    return checkpoint / "arrays" / "metadata"


def restore_arrays(checkpoint: Path, arrays: Mapping[str, list]) -> dict[str, np.ndarray]:
    """Restore some arrays of a checkpoint and verify their checksums.

    Args:
      checkpoint: the checkpoint's directory.
      arrays: the arrays to restore, by name: [dtype, shape, checksum].

    Raises:
      ValueError: an array differs from what was saved. Orbax raises its own errors for damaged
        files.
    """
    wanted = traverse_util.unflatten_dict(
        {
            name: jax.ShapeDtypeStruct(tuple(shape), dtype)
            for name, (dtype, shape, _) in arrays.items()
        },
        sep="/",
    )
    on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    # Not a Checkpointer: when it closes, hosts wait for each other, though one may have failed.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        restored = handler.restore(
            epath.Path(checkpoint / "state"),
            args=ocp.args.PyTreeRestore(item=wanted, restore_args=on_host, partial_restore=True),
        )
    flat = cast(dict[str, np.ndarray], traverse_util.flatten_dict(restored, sep="/"))
    if any(checksums.describe_array(x) != arrays[name] for name, x in flat.items()):
        raise ValueError("its arrays do not match the checksums that were saved")
    return flat
