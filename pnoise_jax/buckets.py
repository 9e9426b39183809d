"""Google Cloud Storage directories, "gs://BUCKET/FOLDER", with the methods of a path.

A bucket stores objects under names; its directories are only common prefixes of these names. An
object is always replaced as a whole, and the next reader gets the new one, so a write is atomic.
Nothing can be appended to, renamed or locked.

These paths read and write through google-cloud-storage and raise its failures as OSErrors. A
failure never counts as a missing file: otherwise a run would start over on top of an existing one.
"""

import contextlib
import copy
import dataclasses
import errno
import fnmatch
import functools
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pnoise_jax import writing

INSTALL = 'pip install "pnoise_jax[gcs]"'
_URL = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]+)(?P<parts>(?:/[\w.=+,@~-]+)*)/*", re.ASCII)
_PATIENCE = 60.0  # seconds for which a failing request is retried, plus the time of its transfer
_SLOWEST = 10e6  # bytes per second: the lowest total transfer rate expected of a process
TOGETHER = 8  # files downloaded at the same time, at most


@dataclasses.dataclass(frozen=True)
class StoredObject:
    """An object as its bucket lists it.

    Attributes:
      name: relative to the directory that was listed, such as ``1.0.0/features.json``.
      generation: of its content; it changes when the object is replaced.
      size: in bytes.
    """

    name: str
    generation: int
    size: int


class BucketPath:
    """An object or a directory of objects, with the part of `pathlib.Path` that runs use.

    Reading attributes sends no request. Methods raise FileNotFoundError where those of `Path` do,
    and OSError if the bucket cannot be reached or refuses the request.
    """

    def __init__(self, url: str | os.PathLike, *, named: str | None = None):
        """Creates the path of a URL.

        Args:
          url: gs://BUCKET/FOLDER or gs://BUCKET/FOLDER/NAME.
          named: how messages refer to it, such as ``--workdir='gs://BUCKET/FOLDER'``; default: the
            URL.

        Raises:
          ValueError: it is not of the form gs://BUCKET/FOLDER, or has characters that libraries
            interpret as patterns.
        """
        matched = _URL.fullmatch(os.fspath(url))
        parts = tuple((matched["parts"] if matched else "").split("/"))[1:]
        if matched is None or not parts or {".", ".."} & set(parts):
            raise ValueError(
                f"{named or repr(os.fspath(url))} is not the URL of a folder: give "
                "gs://BUCKET/FOLDER, with only letters, digits and . _ = + , @ ~ -"
            )
        self._named = named or str(url)
        self.bucket: str = matched["bucket"]
        self.parts: tuple[str, ...] = parts

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self._name}"

    __fspath__ = __str__

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketPath) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str | os.PathLike) -> "BucketPath":
        return self._with_parts((*self.parts, *os.fspath(name).split("/")))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.parts[-1]

    @property
    def parent(self) -> "BucketPath":
        """The directory that contains this path."""
        return self._with_parts(self.parts[:-1])

    def with_name(self, name: str) -> "BucketPath":
        """Another path in the same directory."""
        return self.parent / name

    def absolute(self) -> "BucketPath":
        """This path itself."""
        return self

    expanduser = absolute

    def is_file(self) -> bool:
        """Whether this is an object."""
        with _failures_named(self):
            return self._blob().exists(retry=retry())

    def is_dir(self) -> bool:
        """Whether there are objects below this path."""
        return next(self._blobs_below(limit=1), None) is not None

    def exists(self) -> bool:
        """Whether this is an object, or a directory of objects."""
        return self.is_file() or self.is_dir()

    def read_bytes(self) -> bytes:
        """The content of an object, verified against its checksum."""
        with _failures_named(self):
            return self._blob().download_as_bytes(retry=retry(), checksum="crc32c")

    def read_text(self, *, errors: str = "strict") -> str:
        """The content of an object, decoded as UTF-8."""
        return self.read_bytes().decode(errors=errors)

    def write_bytes(self, content: bytes) -> None:
        """Writes or replaces an object, completely or not at all."""
        with _failures_named(self):
            self._blob().upload_from_string(
                content, retry=retry(size=len(content)), checksum="crc32c"
            )

    def write_text(self, content: str) -> None:
        """Writes text, encoded as UTF-8; see `write_bytes`."""
        self.write_bytes(content.encode())

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a directory exists as soon as it contains an object."""

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Deletes an object."""
        try:
            with _failures_named(self):
                self._blob().delete(retry=retry())
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> "Iterator[BucketPath]":
        """The objects and directories in this directory whose names match a pattern."""
        start = f"{self._name}/"
        names = {blob.name[len(start) :].partition("/")[0] for blob in self._blobs_below()}
        return (self / name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern))

    def list_objects(self) -> list[StoredObject]:
        """All objects below this path; [] if there is no such directory."""
        start = len(self._name) + 1
        return [
            StoredObject(blob.name[start:], int(blob.generation), int(blob.size))
            for blob in self._blobs_below()
        ]

    def download(self, stored: StoredObject, target: Path) -> None:
        """Downloads a listed object to a file, completely or not at all.

        Raises:
          FileNotFoundError: the object was replaced or deleted after it was listed.
          OSError: it cannot be read, was damaged in transfer, or the disk fails.
        """
        from google.cloud.storage.exceptions import DataCorruption

        source = self / stored.name
        with writing.replacing(target) as temporary, _failures_named(source, in_generation=True):
            for tries_left in (2, 1, 0):
                try:
                    # The checksum is of the bytes as stored, not as decompressed.
                    source._blob(stored.generation).download_to_filename(
                        str(temporary),
                        raw_download=True,
                        checksum="crc32c",
                        retry=retry(size=TOGETHER * stored.size),
                    )
                    break
                except DataCorruption:
                    if not tries_left:
                        raise

    def move_directory(self, target: "BucketPath", *, first: str) -> None:
        """Moves all objects below this path to another directory of the bucket.

        Everything is copied before anything is deleted.

        Args:
          target: a directory that contains nothing yet.
          first: the name of the object to delete before the others.
        """
        start = len(self._name) + 1
        names = [blob.name[start:] for blob in self._blobs_below()]
        with _failures_named(self):
            bucket = _client().bucket(self.bucket)
            for name in names:
                blob = bucket.blob(f"{self._name}/{name}")
                bucket.copy_blob(blob, bucket, f"{target._name}/{name}", retry=retry())
            for name in sorted(names, key=lambda name: name != first):
                bucket.blob(f"{self._name}/{name}").delete(retry=retry())

    def _with_parts(self, parts: tuple[str, ...]) -> "BucketPath":
        """Another path in the bucket; names below a directory can have any characters."""
        path = copy.copy(self)
        path.parts = parts
        return path

    @property
    def _name(self) -> str:
        """The name of the object in its bucket."""
        return "/".join(self.parts)

    def _blob(self, generation: int | None = None) -> Any:
        return _client().bucket(self.bucket).blob(self._name, generation=generation)

    def _blobs_below(self, *, limit: int | None = None) -> Iterator[Any]:
        with _failures_named(self, lists=True):
            listed = _client().list_blobs(
                self.bucket, prefix=f"{self._name}/", max_results=limit, retry=retry()
            )
            yield from list(listed)


@functools.cache
def prepare_libraries() -> None:
    """Lets Orbax write to buckets through gcsfs, even if TensorFlow is installed, without caching.

    With a cache, gcsfs would not see what other hosts have written since it listed a directory. By
    default it also queries the type of each bucket, which many accounts are not allowed to do, and
    logs each failure in addition to our error.

    Raises:
      ImportError: the required packages are not installed.
    """
    os.environ.setdefault("EPATH_USE_TF", "false")
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec.config
    import gcsfs  # noqa: F401
    import google.cloud.storage  # noqa: F401
    from etils.epath import gpath

    # etils caches whether to use TensorFlow.
    getattr(getattr(gpath, "_is_tf_installed", None), "cache_clear", lambda: None)()
    for protocol in ("gs", "gcs"):
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


@functools.lru_cache(maxsize=1)
def _client() -> Any:
    """A client with the user's credentials; if there are none, an anonymous one."""
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage  # an extra

    try:
        return storage.Client(project=None)
    except DefaultCredentialsError:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise
        return storage.Client.create_anonymous_client()


def retry(*, size: int = 0) -> Any:
    """The policy for retrying a failing request that transfers `size` bytes."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_PATIENCE + size / _SLOWEST)


@contextlib.contextmanager
def _failures_named(
    path: BucketPath, *, lists: bool = False, in_generation: bool = False
) -> Iterator[None]:
    """Turns the client's exceptions into OSErrors that say what to do.

    Args:
      path: the path that is read or written.
      lists: whether the request lists objects; "not found" then means that the bucket is missing.
      in_generation: whether the request downloads one generation of an object to a file.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError

    try:
        yield
    except exceptions.NotFound as error:
        if lists or "bucket does not exist" in str(error):
            raise OSError(
                f"{path._named}: there is no bucket {path.bucket!r}: check the spelling, or "
                "create it with `gcloud storage buckets create`"
            ) from error
        if in_generation:
            raise FileNotFoundError(
                f"{path._named}: {path} was replaced or deleted while it was copied: start again"
            ) from error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except TransportError as error:
        raise _connection_error(path, error) from error
    except (exceptions.Unauthorized, exceptions.Forbidden, GoogleAuthError) as error:
        raise PermissionError(
            f"{path._named}: {path} cannot be read and written with the credentials found here "
            f"({reason(error)}): run "
            "`gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS to a key "
            "file, or give the account of this machine the role Storage Object User (to read only, "
            "Storage Object Viewer)"
        ) from error
    except exceptions.ClientError as error:
        raise OSError(f"{path._named}: {path}: the bucket refused it ({reason(error)})") from error
    except Exception as error:  # network libraries have no common base class
        if in_generation and is_of_disk(error):
            raise
        raise _connection_error(path, error) from error


def is_of_disk(error: Exception) -> bool:
    """Whether the file system has failed; network errors are OSErrors as well."""
    if isinstance(error, ConnectionError | TimeoutError):
        return False
    return isinstance(error, OSError) and error.errno is not None


def _connection_error(path: BucketPath, error: Exception) -> OSError:
    return OSError(
        f"{path._named}: {path} cannot be reached ({reason(error)}): check the connection, and "
        "start the same command again"
    )


def reason(error: Exception) -> str:
    """The first line of an error's message, or its repr if it has no message."""
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(":")
