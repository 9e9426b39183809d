"""Data sets in buckets: copied to this machine, and then read like any other data set.

Records are read in random order, and reading them from the bucket would take one request each. The
files of a split are therefore copied before its first record is read, and are kept for later.
"""

import contextlib
import fcntl
import hashlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from pnoise_jax import buckets, stopping, writing
from pnoise_jax.buckets import BucketPath, StoredObject
from pnoise_jax.data import notice

_RECORDS = re.compile(r"\.(array_record|tfrecord)-\d+-of-\d+")
_MANY = 100_000_000  # bytes; larger copies take so long that progress is printed
_LEFT = 3600  # seconds without a write, after which a temporary file is considered abandoned


def bucket_path(url: str, name: str, *, field: str) -> BucketPath:
    """The path of a data set below a URL, ``gs://BUCKET`` or ``gs://BUCKET/FOLDER``.

    Args:
      url: the URL that contains the data sets.
      name: the name of this data set.
      field: the field or variable that the user sets the URL with, for error messages.

    Raises:
      ValueError: the URL has another scheme, or the required packages are not installed.
    """
    named = f"{field}={url!r}"
    if not url.startswith("gs://"):
        raise ValueError(
            f"{named} is a URL, but only URLs of Google Cloud Storage, gs://BUCKET/FOLDER, are "
            "supported. Copy the data sets to a directory, or mount their storage, and set that "
            "directory"
        )
    try:
        buckets.prepare_libraries()
    except ImportError as error:
        raise ValueError(
            f"{named} is in Google Cloud Storage, but a package for it is not installed "
            f"({error}): {buckets.INSTALL}; or copy it with `gcloud storage cp -r`"
        ) from error
    sibling = BucketPath(f"{url.rstrip('/')}/name", named=named)  # needs more than the bucket
    return sibling.with_name(name)


class Copy:
    """A local copy of one version of a data set; its records are copied on demand.

    Attributes:
      path: the directory of the copy, below directories named as in the bucket. If any file in the
        bucket changes, another directory is used.
    """

    def __init__(self, source: BucketPath, files: Iterable[StoredObject]):
        """Copies all files except the records, unless they are there already.

        Args:
          source: the directory of the version, in the bucket.
          files: the files in this directory, as listed.

        Raises:
          OSError: the bucket cannot be read, or the disk cannot be written.
        """
        self._source = source
        self._files = {file.name: file for file in files}
        state = "".join(f"{x.name} {x.generation}\n" for x in self._files.values())
        key = hashlib.sha256(f"{source}\n{state}".encode()).hexdigest()[:24]
        place = writing.cache_directory().joinpath("data", source.bucket, *source.parts[:-1])
        self.path = place / key / source.name
        with self._disk_named():
            self.path.mkdir(parents=True, exist_ok=True)
        self.fetch(name for name in self._files if not _RECORDS.search(name))

    def fetch(self, names: Iterable[str]) -> None:
        """Copies the named files that are in the bucket but not on this machine.

        Raises:
          OSError: the bucket cannot be read, or the disk is full or cannot be written.
        """
        known = [self._files[name] for name in names if name in self._files]
        if not self._missing(known):
            return
        # A signal ends the process at once: copied files are kept, and the rest can take hours.
        with (
            stopping.at_once(f"while copying {self._source}"),
            self._disk_named(),
            self._alone(),
        ):
            missing = self._missing(known)  # again: another process may have copied some
            size = sum(file.size for file in missing)
            free = shutil.disk_usage(self.path).free
            if size > free:
                raise OSError(
                    f"{self._source}: {_gigabytes(size)} must be copied to {self.path}, where only "
                    f"{_gigabytes(free)} are free: make room, set XDG_CACHE_HOME to a larger disk, "
                    "or mount the bucket with gcsfuse and set that directory"
                )
            self._download(missing, size)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Adds to errors about these files what they are a copy of, and how to copy them again."""
        try:
            yield
        except OSError as error:
            message = str(error)
            if str(self.path) not in message or message.startswith(str(self._source)):
                raise
            raise type(error)(
                f"{message}. This is a copy of {self._source}: correct the original; if it is "
                f"correct, delete {self.path}, and it will be copied again"
            ) from error

    def _missing(self, files: Iterable[StoredObject]) -> list[StoredObject]:
        return [file for file in files if not self._is_here(file)]

    def _is_here(self, file: StoredObject) -> bool:
        """Whether a file has been copied; files are complete and verified once they exist."""
        try:
            return (self.path / file.name).stat().st_size == file.size
        except OSError:
            return False

    def _download(self, files: list[StoredObject], size: int) -> None:
        if size >= _MANY:
            notice.tell(
                f"copying {len(files)} files, {_gigabytes(size)}, from {self._source} to "
                f"{self.path}, once"
            )

        def download(file: StoredObject) -> int:
            self._source.download(file, self.path / file.name)
            return file.size

        done, tenths = 0, 0
        with ThreadPoolExecutor(buckets.TOGETHER) as pool:
            try:
                for copied in as_completed([pool.submit(download, file) for file in files]):
                    done += copied.result()
                    if size >= _MANY and 10 * done // size > tenths:
                        tenths = 10 * done // size
                        notice.tell(f"copying {self._source}: {10 * tenths} %")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds a lock, so other processes of this machine wait until the files are copied."""
        with open(self.path / ".copying", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notice.tell(f"another process is copying {self._source}: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:  # no locks on this file system; safe, as files are replaced atomically
                yield
                return
            for file in self.path.glob(".*.tmp"):
                # If locks do not extend to other hosts, one of them may still be writing to it.
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - file.stat().st_mtime > _LEFT:
                        file.unlink()
            yield

    @contextlib.contextmanager
    def _disk_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
                raise
            raise OSError(
                f"{self._source} cannot be copied to {self.path} ({error.strerror}): make room "
                "there, make it writable, or set XDG_CACHE_HOME to another directory"
            ) from error


def files_below(directory: BucketPath) -> dict[str, list[StoredObject]]:
    """The files in each immediate subdirectory, by its name; file names are relative to it.

    Raises:
      OSError: the bucket cannot be read.
    """
    files_of: dict[str, list[StoredObject]] = {}
    for stored in directory.list_objects():
        parts = stored.name.split("/")
        if len(parts) == 2 and not {"", ".", ".."} & {*parts} and "\0" not in stored.name:
            file = StoredObject(parts[1], stored.generation, stored.size)
            files_of.setdefault(parts[0], []).append(file)
    return files_of


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
