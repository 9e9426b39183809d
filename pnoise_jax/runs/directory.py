"""Creates, checks and locks a work directory before anything is written there."""

import contextlib
import fcntl
import functools
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import jax

from pnoise_jax import writing
from pnoise_jax.runs.layout import RunDirectory, is_in_bucket, locate


class TakenOverError(OSError):
    """Another process has started to train in this bucket; a restart here would stop it."""


def make_writable(
    workdir: str | os.PathLike, *, flag: str = "workdir", may_be_in_bucket: bool = False
) -> Path:
    """Create the directory if necessary, check that it is writable, and return its path.

    Args:
      workdir: the directory.
      flag: the name of the flag that set it, for error messages.
      may_be_in_bucket: whether to accept a directory in a bucket.

    Raises:
      ValueError: the path cannot be a directory.
      OSError: it is not writable.
    """
    if not str(workdir).strip():
        raise ValueError(f"--{flag}={str(workdir)!r} is not a directory: give the path of one")
    if not may_be_in_bucket:
        writing.require_local(workdir, named=f"--{flag}={str(workdir)!r}")
    path = locate(workdir, flag=flag).absolute()
    if is_in_bucket(path):
        probe = path / f".writable-{secrets.token_hex(8)}"
        probe.write_text(probe.name)
        probe.unlink()
        return path
    if flag == "workdir" and os.fsencode(path).decode(errors="ignore") != str(path):
        raise ValueError(
            f"--{flag}={str(workdir)!r} is not in UTF-8, and checkpoints cannot be written there: "
            "choose another directory, or rename it"
        )
    if flag == "workdir" and os.name == "posix" and "\\" in str(path):
        raise ValueError(
            f"--{flag}={str(workdir)!r} has a backslash, which the library that stores arrays "
            "reads as a slash: the arrays would be missing from checkpoints. Choose another "
            "directory, or rename it"
        )
    return writing.make_directory(path, named=f"--{flag}={str(workdir)!r}")


def require_layout(path: Path) -> None:
    """Raises OSError if a file is where a run needs a directory, or vice versa."""
    if is_in_bucket(path):
        return
    named = f"--workdir={str(path)!r}"
    run = RunDirectory(path)
    writing.require_places(
        path,
        named=named,
        files=[file.name for file in run.files],
        directories=[directory.name for directory in run.directories],
    )
    for place in sorted(run.checkpoints.glob("*")):  # Orbax would treat these as checkpoints
        if place.name.isdecimal() and (not place.is_dir() or place.name != str(int(place.name))):
            raise FileExistsError(
                f"{named}: {place} has a checkpoint's name but is not one: move it away"
            )


def require_room(path: Path, needed: int) -> None:
    """Raises OSError unless the file system of ``path`` has ``needed`` bytes free."""
    if is_in_bucket(path):
        return
    free = shutil.disk_usage(path).free
    if free < needed:
        raise OSError(
            f"--workdir={str(path)!r} has {free / 1e6:.0f} MB left and the checkpoints need about "
            f"{needed / 1e6:.0f} MB: make room, or lower checkpoint.keep"
        )


@contextlib.contextmanager
def lock(path: Path) -> Iterator[Callable[[], None]]:
    """Keeps other processes on this machine from training in ``path``, at most until this one ends.

    Buckets have no locks. There, the last process to start continues, because a process that was
    lost cannot release anything; the others find out before their next write.

    Yields:
      A function that raises OSError if the directory has been deleted or replaced since, and
      TakenOverError if another process has started to train in the same bucket.

    Raises:
      OSError: another process already trains there.
    """
    if jax.process_index() != 0:
        yield functools.partial(_require_there, path, None)
        return
    if is_in_bucket(path):
        mark = f"{secrets.token_hex(8)} {socket.gethostname()} {os.getpid()}"
        RunDirectory(path).lock.write_text(mark)
        yield functools.partial(_require_own, path, mark)
        return
    place = RunDirectory(path).lock
    writing.require_places(path, named=f"--workdir={str(path)!r}", files=(place.name,))
    with place.open("a") as file:  # appending leaves the file unchanged if it is locked
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"--workdir={str(path)!r} is in use: another process is training there; wait for "
                "it, or choose another directory"
            ) from None
        yield functools.partial(_require_there, path, file)


def _require_there(path: Path, locked: IO | None) -> None:
    """Raises OSError if the directory was deleted, or recreated by another run."""
    run, named = RunDirectory(path), f"--workdir={str(path)!r}"
    what = None
    if not path.is_dir():
        what = "was replaced by a file" if os.path.lexists(path) else "was deleted or moved"
    elif locked is not None and run.lock.exists() and not _is_same_file(run.lock, locked):
        what = "was deleted, and another run has recreated it"
    elif not run.has_run():
        if not run.has_checkpoint():
            what = "has lost its config.json"
        else:
            raise OSError(
                f"{named} lost its config.json while this run was training: put it back, and start "
                "the same command again; the checkpoints there are intact, but the steps since the "
                "last one are lost"
            )
    if what is not None:
        raise OSError(
            f"{named} {what} while this run was training: its checkpoints and metrics there are "
            "lost, and so is its progress. Put the directory back, or start again in another one"
        )


def _require_own(path: Path, mark: str) -> None:
    """Raises OSError if another process trains in this bucket now, or the run was deleted."""
    run, named = RunDirectory(path), f"--workdir={str(path)!r}"
    try:
        now = run.lock.read_text()
    except FileNotFoundError:
        raise OSError(
            f"{named} was deleted or moved while this run was training: its checkpoints and "
            "metrics there are lost, and so is its progress. Start again in another one"
        ) from None
    if now != mark:
        _, host, process = f"{now} unknown unknown".split()[:3]
        raise TakenOverError(
            f"{named} is in use: process {process} on {host} has started to train there, so this "
            "one stops. Run only one of them, or choose a separate directory for each"
        )
    _require_there(path, None)


def _is_same_file(file: Path, opened: IO) -> bool:
    return os.path.samestat(file.stat(), os.fstat(opened.fileno()))
