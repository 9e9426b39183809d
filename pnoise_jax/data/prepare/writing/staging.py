"""The directory of a data set until it is complete: `<data_dir>/incomplete.<name>`."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tensorflow_datasets.core.utils import Size

_LOCK = "lock"


def staging_directory(data_dir: Path, name: str) -> Path:
    """The staging directory of a name: always the same, so that the same command can resume."""
    return data_dir / f"incomplete.{name.replace('/', '.')}"


@contextlib.contextmanager
def locked(staging: Path) -> Iterator[None]:
    """Creates the directory and locks out other processes; killed processes leave no lock.

    Removes the directory at the end if it is empty.

    Raises:
      OSError: another process has the lock, or the directory cannot be created.
    """
    descriptor = _lock(staging)
    try:
        yield
    finally:
        if not any(path.name != _LOCK for path in staging.iterdir()):
            shutil.rmtree(staging)
        os.close(descriptor)


def clear(staging: Path) -> None:
    """Removes everything but the lock."""
    for path in staging.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def remove(staging: Path) -> None:
    """Removes the directory, unless another process uses it or it cannot be removed."""
    if staging.exists():
        with contextlib.suppress(OSError), locked(staging):
            clear(staging)


def require_space(staging: Path, needed: int) -> None:
    """Checks that the remaining data fits on the disk.

    Args:
      staging: a directory on the disk.
      needed: bytes that must still be written.

    Raises:
      OSError: less space is free.
    """
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise OSError(
            f"{staging.parent} has {Size(free)} free, but {Size(needed)} must still be written: "
            "make room, choose another --data_dir, or shrink the images "
            "(--short_side=320)"
        )


def _lock(staging: Path) -> int:
    while True:
        try:
            staging.mkdir(exist_ok=True)
            descriptor = os.open(staging / _LOCK, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            if not staging.parent.exists():
                raise
            continue  # the process that had the lock has just removed it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise OSError(
                f"another process is preparing in {staging}: wait until it has finished"
            ) from error
        # Otherwise the locked file was removed, and others lock a new one.
        if _same_file(descriptor, staging / _LOCK):
            return descriptor
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
