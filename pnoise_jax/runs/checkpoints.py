"""Checkpoints that are verified when restored; broken ones are skipped for the newest whole one."""

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from pnoise_jax.runs import array_kinds, checksums
from pnoise_jax.runs.damage import describe_damage
from pnoise_jax.runs.layout import RunDirectory, is_in_bucket, move_checkpoint
from pnoise_jax.runs.literal_paths import take_paths_literally
from pnoise_jax.terminal import say

_PENDING = "pending metrics"  # among the arrays' checksums; no array has this name


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, without its own check for preemption.

    That check runs in a background thread and counts steps; `stopping` counts differently, so the
    processes could not agree on the step at which to stop.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run: Orbax directories, each with a checksum of every array.

    Orbax writes in the background and publishes a checkpoint by renaming its directory. It does not
    verify what it restores, so corrupted bytes become wrong numbers. The checksums detect these.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        keep: int,
        report: Callable[[str], None] = say,
    ):
        """Opens the checkpoints of a run; creates their directory if necessary.

        Args:
          workdir: the run's work directory, which must exist.
          keep: how many of the newest checkpoints to keep.
          report: called with sentences about broken checkpoints.

        Raises:
          OSError: the directory is a file, or cannot be created.
        """
        take_paths_literally()
        self._run = RunDirectory.at(workdir)
        self.directory = self._run.checkpoints
        self.directory.mkdir(exist_ok=True)
        self._report = report
        self._saving: int | None = None  # the step in flight
        # Must come before Orbax deletes the checkpoints that it considers incomplete.
        steps = self._run.steps() if is_in_bucket(self.directory) else []
        with _naming_bucket_errors(self.directory):
            self._manager = _Manager(
                epath.Path(self.directory),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=ocp.checkpoint_managers.LatestN(keep), create=True
                ),
            )
        self._require_seen(steps)

    def save(self, step: int, state: Any, pending: Sequence[dict[str, float]] = ()) -> None:
        """Starts to save ``state``, which may be donated as soon as this returns.

        Args:
          step: the number of the checkpoint, equal to the state's "step" if it has one.
          state: a tree of arrays.
          pending: the metrics of earlier steps that are not in any report yet.

        Raises:
          OSError: this or the previous checkpoint cannot be written.
        """
        self.wait()
        self._saving = step
        described: dict[str, Any] = checksums.describe(state)
        if pending:
            described[_PENDING] = [list(pending), _crc(list(pending))]
        with self._naming_write_errors():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    arrays=ocp.args.JsonSave(described),
                ),
                force=True,
            )

    def _require_seen(self, steps: Sequence[int]) -> None:
        """Raises OSError if Orbax does not see a checkpoint, as when it could not reach a bucket.

        Its libraries treat such a failure as a missing file, and the run would start over.
        """
        unseen = set(steps) - set(self._manager.all_steps())
        if unseen:
            raise OSError(
                f"{self.directory} could not be listed: the checkpoint of step {max(unseen)} is "
                "there, but was not seen. Check the connection, and start the same command again"
            )

    def wait(self) -> None:
        """Blocks until the last save is on disk.

        Raises:
          OSError: the checkpoint cannot be written.
        """
        with self._naming_write_errors():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        self._saving = None

    def pending(self, step: int) -> list[dict[str, float]]:
        """The pending metrics that were passed to `save` for this checkpoint."""
        return self._read_described(step).get(_PENDING, [[]])[0]

    @contextlib.contextmanager
    def _naming_write_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # TensorStore reports a full disk as a ValueError
            # Orbax lists a step even if its commit failed, and would refuse to save it again.
            with contextlib.suppress(OSError):
                self._manager.reload()
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise OSError(
                f"cannot write the checkpoint of step {self._saving} to {self.directory}: {reason} "
                f"(last whole checkpoint: {self.describe_newest()}). "
                + ("Make room or make it writable, and start" if _is_of_disk(error) else "Start")
                + " the same command again"
            ) from error

    def newest(self) -> int | None:
        """The step of the newest checkpoint on disk, or None."""
        return max(self._manager.all_steps(), default=None)

    def describe_newest(self) -> str:
        """The newest checkpoint, except one still being saved: "that of step 7", or "none"."""
        whole = [step for step in self._manager.all_steps() if step != self._saving]
        return f"that of step {max(whole)}" if whole else "none"

    def count(self) -> int:
        """The number of checkpoints."""
        return len(self._manager.all_steps())

    def restore(self, like: Any, *, set_aside: bool = True) -> tuple[Any, int] | None:
        """The newest whole checkpoint and its step, or None if nothing was ever saved.

        Args:
          like: a tree of ShapeDtypeStructs with shardings: what to restore, and to which devices.
          set_aside: whether to move newer, broken checkpoints to the folder "unreadable" next to
            the folder of the checkpoints, so that their steps can be saved again.

        Raises:
          OSError: there are checkpoints, but none is whole.
          array_kinds.OtherStateError: a checkpoint has a state that differs from `like`; nothing is
            moved.
        """
        broken: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            state, reason = self._try_restore(step, like)
            if _on_any_host(reason is not None):
                broken[step] = reason or "another host cannot read it"
                self._report(f"the checkpoint of step {step} is broken: {broken[step]}")
                continue
            if set_aside:
                self._set_aside(list(broken))
            return state, step
        if broken:
            reasons = "; ".join(f"step {step}: {reason}" for step, reason in broken.items())
            raise OSError(
                f"none of the checkpoints in {self.directory} can be restored ({reasons}); "
                "restore the directory from a copy, or start in another work directory"
            )
        return None

    def close(self) -> None:
        """Waits for the last save and stops the threads.

        Raises:
          OSError: the checkpoint cannot be written.
        """
        with self._naming_write_errors():
            self._manager.close()

    def _try_restore(self, step: int, like: Any) -> tuple[Any, str | None]:
        """The state and None, or None and the reason why it cannot be restored."""
        tries = 2 if is_in_bucket(self.directory) else 1  # the network may have failed
        for left in reversed(range(tries)):
            try:
                return self._restore_verified(step, like), None
            except array_kinds.OtherStateError:  # the descriptions are the same on all hosts
                raise
            except Exception as error:  # whatever is wrong with it, an older one may be whole
                if tries > 1:
                    self._run.config.is_file()  # raises if the bucket cannot be reached
                if not left:
                    return None, describe_damage(self.directory / str(step), error)
        raise AssertionError("unreachable")

    def _read_described(self, step: int) -> dict[str, Any]:
        """The dtype, shape and checksum of each array, and the pending metrics."""
        return self._manager.restore(step, args=ocp.args.Composite(arrays=ocp.args.JsonRestore()))[
            "arrays"
        ]

    def _restore_verified(self, step: int, like: Any) -> Any:
        arrays = self._read_described(step)
        pending, crc = arrays.pop(_PENDING, ([], _crc([])))
        if crc != _crc(pending):
            raise ValueError("its pending metrics do not match the checksum that was saved")
        array_kinds.require_same(self.directory / str(step), arrays, like)
        state = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
        )["state"]
        for name, (_, _, checksum) in checksums.describe(state).items():
            if checksum != arrays[name][2]:
                raise ValueError(f"{name} does not match the checksum that was saved")
        inside = dict(checksums.named_leaves(state)).get("step", step)
        if int(inside) != step:
            raise ValueError(
                f"it contains the state of step {int(inside)}: it is a copy under another number"
            )
        return state

    def _set_aside(self, steps: list[int]) -> None:
        if jax.process_index() == 0:
            for step in steps:
                target = self._run.unreadable / f"{step}"
                while target.exists():
                    target = target.with_name(target.name + "-again")
                target.parent.mkdir(exist_ok=True)
                move_checkpoint(self.directory / str(step), target)
                self._report(f"moved the checkpoint of step {step} to {target}")
        if steps:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("broken checkpoints are set aside")
            self._manager.reload()


@contextlib.contextmanager
def _naming_bucket_errors(directory: Path) -> Iterator[None]:
    """Converts the libraries' errors to an OSError that names a directory in a bucket."""
    try:
        yield
    except Exception as error:
        if not is_in_bucket(directory):
            raise
        reason = " ".join(str(error).split()) or repr(error)
        raise OSError(
            f"{directory} cannot be opened ({reason}): check the connection and the credentials, "
            "and start the same command again"
        ) from error


def _crc(pending: list[dict[str, float]]) -> int:
    return zlib.crc32(json.dumps(pending, sort_keys=True).encode())


def _on_any_host(flag: bool) -> bool:
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def _is_of_disk(error: BaseException | None) -> bool:
    """Whether the error is about files, and not, for example, about a lost host."""
    text = str(error)
    return error is not None and (
        isinstance(error, OSError)
        or any(words in text for words in ("os_error_code", "Error writing", "Failed writing"))
        or _is_of_disk(error.__cause__)
    )
