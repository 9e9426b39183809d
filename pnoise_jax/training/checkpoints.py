"""Checkpoints that are verified when restored, and give way to the newest whole one."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax import lax

_UNREADABLE = "unreadable"  # where checkpoints go that turned out broken


class Checkpoints:
    """The checkpoints of one run: Orbax directories, each with a checksum of every array.

    Orbax writes in the background and publishes a checkpoint by renaming its directory; what it
    restores it does not check, so arrays with flipped bytes come back as wrong numbers. Here they
    are found.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int):
        """Args: where they lie (made if need be), and how many of the newest to keep."""
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(keep),
                create=True,
            ),
        )

    def save(self, step: int, state: Any) -> None:
        """Starts to save ``state``, which may be donated when this returns.

        Raises:
          OSError: this or the previous checkpoint cannot be written.
        """
        description = _describe(state)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), arrays=ocp.args.JsonSave(description)
                ),
                force=True,
            )
        except Exception as error:  # TensorStore reports a full disk as a ValueError
            raise self._write_error(step, error) from error

    def wait(self) -> None:
        """Blocks until the last save is on disk.

        Raises:
          OSError: it cannot be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._write_error(None, error) from error

    def newest(self) -> int | None:
        """The step of the newest checkpoint on disk, None if there is none."""
        return max(self._manager.all_steps(), default=None)

    def restore(self, like: Any, *, set_aside: bool = True) -> tuple[Any, int] | None:
        """The newest whole checkpoint and its step, None if there has been none.

        Args:
          like: a tree of ShapeDtypeStructs with shardings: what to restore, and onto what.
          set_aside: move broken ones that are newer into the folder "unreadable" beside these, so
            that their steps can be saved again.

        Raises:
          OSError: there are checkpoints, but none is whole.
        """
        broken: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = self._restore_verified(step, like)
            except Exception as error:  # whatever is wrong with it, an older one may be whole
                broken[step] = str(error).strip().splitlines()[0]
                logging.warning("checkpoint of step %d is broken: %s", step, broken[step])
                continue
            if set_aside:
                self._set_aside(list(broken))
            return state, step
        if broken:
            reasons = "; ".join(f"step {step}: {reason}" for step, reason in broken.items())
            raise OSError(
                f"none of the checkpoints in {self.directory} can be restored ({reasons}); "
                "restore the directory from a copy, or start in another workdir"
            )
        return None

    def close(self) -> None:
        """Waits for the last save and stops the threads."""
        self._manager.close()

    def _restore_verified(self, step: int, like: Any) -> Any:
        arrays = self._manager.restore(
            step, args=ocp.args.Composite(arrays=ocp.args.JsonRestore())
        ).arrays
        expected = {name: entry[:2] for name, entry in arrays.items()}
        wanted = {name: _kind(leaf) for name, leaf in _named_leaves(like)}
        if expected != wanted:
            name = min(
                k for k in expected.keys() | wanted.keys() if expected.get(k) != wanted.get(k)
            )
            raise ValueError(f"{name} is {expected.get(name)}; the run has {wanted.get(name)}")
        state = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
        ).state
        for name, (_, _, checksum) in _describe(state).items():
            if checksum != arrays[name][2]:
                raise ValueError(f"{name} is not what was saved: its checksum differs")
        return state

    def _set_aside(self, steps: list[int]) -> None:
        if jax.process_index() == 0:
            for step in steps:
                target = self.directory.parent / _UNREADABLE / f"{step}"
                while target.exists():
                    target = target.with_name(target.name + "-again")
                target.parent.mkdir(exist_ok=True)
                os.rename(self.directory / str(step), target)
                logging.warning("moved it to %s", target)
        if steps:
            self._manager.reload()

    def _write_error(self, step: int | None, error: Exception) -> OSError:
        what = "the last checkpoint" if step is None else f"the checkpoint of step {step}"
        whole = "none" if self.newest() is None else f"that of step {self.newest()}"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        return OSError(
            f"cannot write {what} to {self.directory}: {reason} (last whole checkpoint: {whole}). "
            "Make room or make it writable, and start the same command again"
        )


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def _kind(leaf: Any) -> list:
    return [str(leaf.dtype), list(leaf.shape)]


def _describe(tree: Any) -> dict[str, list]:
    """{name: [dtype, shape, checksum]} of every array."""
    checksums = jax.device_get(_checksums(jax.tree.leaves(tree)))
    return {
        name: [*_kind(leaf), int(checksum)]
        for (name, leaf), checksum in zip(_named_leaves(tree), checksums, strict=True)
    }


@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(x: jax.Array) -> jax.Array:
    """A uint32 hash of the bits of x and their places, whatever its sharding."""
    width = np.dtype(x.dtype).itemsize
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[width]
    bits = lax.bitcast_convert_type(x, unsigned).reshape(-1).astype(jnp.uint32)
    places = jnp.arange(bits.size, dtype=jnp.uint32)
    return _mix(bits ^ _mix(places)).sum(dtype=jnp.uint32)


def _mix(h: jax.Array) -> jax.Array:
    """MurmurHash3's 32-bit finaliser: every bit of the input changes about half of the output's."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
