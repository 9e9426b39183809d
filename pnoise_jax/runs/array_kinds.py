"""Tells a checkpoint saved with other settings, whose arrays differ, from a damaged one."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from pnoise_jax.runs import checksums


class OtherStateError(ValueError):
    """A checkpoint contains a different state from this program's."""


def require_same(path: Path, arrays: Mapping[str, list], like: Any) -> None:
    """Checks the names, dtypes and shapes of a checkpoint's arrays.

    Args:
      path: the directory of the checkpoint; its name is the step.
      arrays: our description of the arrays, stored in the checkpoint; see `checksums.describe`.
      like: the program's state: arrays or ShapeDtypeStructs.

    Raises:
      OtherStateError: our description and Orbax's agree that the checkpoint has another state.
      ValueError: our description contradicts Orbax's: the checkpoint is damaged.
    """
    theirs = {name: entry[:2] for name, entry in arrays.items()}
    ours = _kinds(like)
    if theirs == ours:
        return
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        by_orbax = _kinds(handler.metadata(epath.Path(path / "state")).tree)
    if theirs != by_orbax:
        name = _first_different(theirs, by_orbax)
        raise ValueError(
            f"{name} should be {_in_words(theirs.get(name))} and is {_in_words(by_orbax.get(name))}"
        )
    name = _first_different(theirs, ours)
    raise OtherStateError(
        f"the checkpoint of step {path.name} in {path.parent} has a different state from this "
        f"program's: {name} is {_in_words(theirs.get(name))} there and "
        f"{_in_words(ours.get(name))} here. It was saved with another config, another version of "
        "the code or other settings of JAX (such as JAX_ENABLE_X64): resume with those, or start "
        "in another work directory"
    )


def _kinds(tree: Any) -> dict[str, list]:
    return {name: checksums.kind(leaf) for name, leaf in checksums.named_leaves(tree)}


def _first_different(one: Mapping[str, list], other: Mapping[str, list]) -> str:
    return min(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _in_words(kind: list | None) -> str:
    """[dtype, shape] in words: "float32 (3, 4)"."""
    return "missing" if kind is None else f"{kind[0]} {tuple(kind[1])}"
