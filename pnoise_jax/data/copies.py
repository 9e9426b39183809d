"""Data sets in buckets: copied to this machine, where they are read like all others.

Records are read in random order, and a bucket would get a request for each. So the files of a
split are copied before the first of its records is read, and stay for the next time.
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
_MANY = 100_000_000  # bytes, to copy which takes so long that somebody may wonder
_LEFT = 3600  # seconds after which a file that nobody writes to was left by a killed process


def bucket_path(url: str, name: str, *, field: str) -> BucketPath:
    """Where a data set is below a URL, ``gs://BUCKET`` or ``gs://BUCKET/FOLDER``.

    Args:
      url: of the data sets.
      name: of this one.
      field: what the user sets the URL with.

    Raises:
      ValueError: it is another URL, or the packages for it are not installed.
    """
    named = f"{field}={url!r}"
    if not url.startswith("gs://"):
        raise ValueError(
            f"{named} is a URL, and only those of Google Cloud Storage, gs://BUCKET/FOLDER, are "
            "read. Copy the data sets, or mount what has them, and give that directory"
        )
    try:
        buckets.prepare_libraries()
    except ImportError as error:
        raise ValueError(
            f"{named} is in Google Cloud Storage, and a package for it is not installed "
            f"({error}): {buckets.INSTALL}; or copy it with `gcloud storage cp -r`"
        ) from error
    sibling = BucketPath(f"{url.rstrip('/')}/name", named=named)  # a bucket alone is no path
    return sibling.with_name(name)


class Copy:
    """The copy of one version of a data set; all but its records is there from the start.

    Attributes:
      path: the directory, another one when anything in the bucket has changed; it lies below
        directories that are called as in the bucket.
    """

    def __init__(self, source: BucketPath, files: Iterable[StoredObject]):
        """Copies all but the records, unless they are there.

        Args:
          source: the directory of the version.
          files: what it has, as listed.

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
        """Copies those of these files that the bucket has and this machine does not.

        Raises:
          OSError: the bucket cannot be read, or the disk is full or cannot be written.
        """
        known = [self._files[name] for name in names if name in self._files]
        if not self._missing(known):
            return
        # A signal ends the process at once: what is copied stays, and the rest can take hours.
        with (
            stopping.at_once(f"while copying {self._source}"),
            self._disk_named(),
            self._alone(),
        ):
            missing = self._missing(known)  # by now
            size = sum(file.size for file in missing)
            free = shutil.disk_usage(self.path).free
            if size > free:
                raise OSError(
                    f"{self._source}: {_gigabytes(size)} are to be copied to {self.path}, where "
                    f"{_gigabytes(free)} are free: make room, set XDG_CACHE_HOME to a larger disk, "
                    "or mount the bucket with gcsfuse and give that directory"
                )
            self._download(missing, size)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Errors of files say that these are copies, of what, and how to make them again."""
        try:
            yield
        except OSError as error:
            message = str(error)
            if str(self.path) not in message or message.startswith(str(self._source)):
                raise
            raise type(error)(
                f"{message}. This is a copy of {self._source}: put right what is there, or if it "
                f"is right, delete {self.path}, and it is copied again"
            ) from error

    def _missing(self, files: Iterable[StoredObject]) -> list[StoredObject]:
        return [file for file in files if not self._is_here(file)]

    def _is_here(self, file: StoredObject) -> bool:
        """Whether it was copied: it then has its whole content, compared with its checksum."""
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
        """Other processes of this machine wait, and find the files here then."""
        with open(self.path / ".copying", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notice.tell(f"another process copies {self._source}: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:  # no locks there; each file is replaced as a whole
                yield
                return
            for file in self.path.glob(".*.tmp"):
                # Where locks do not reach other hosts, one of these may write to it.
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
                "there or make it writable, or set XDG_CACHE_HOME to another directory"
            ) from error


def files_below(directory: BucketPath) -> dict[str, list[StoredObject]]:
    """The files in each directory right below this one, by its name; their names are without it.

    Raises:
      OSError: the bucket cannot be read.
    """
    found: dict[str, list[StoredObject]] = {}
    for stored in directory.list_objects():
        parts = stored.name.split("/")
        if len(parts) == 2 and not {"", ".", ".."} & {*parts} and "\0" not in stored.name:
            file = StoredObject(parts[1], stored.generation, stored.size)
            found.setdefault(parts[0], []).append(file)
    return found


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
