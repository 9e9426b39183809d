"""Weights in Google Cloud Storage: "gs://BUCKET/NAME", or "gs://BUCKET/NAME#GENERATION".

The object and the config.json in the same folder are downloaded into a cache and compared with the
sizes and checksums that the bucket states. A URL is resolved once per process: the weights that are
read are those that were matched, even if the object is replaced in between.
"""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c

from pnoise_jax import buckets, writing
from pnoise_jax.registry import similar
from pnoise_jax.terminal import printable
from pnoise_jax.weights.errors import weights_field
from pnoise_jax.weights.formats.safetensors_file import INDEX

_URL = re.compile(r"gs://(?P<bucket>[^/]*)/?(?P<name>.*?)(?:#(?P<generation>\d+))?", re.DOTALL)
_FORM = "is not an object: give gs://BUCKET/NAME, or gs://BUCKET/NAME#GENERATION"
_COPY = "copy it with `gcloud storage cp` and give its path"
_CHUNK = 1 << 20  # bytes


def is_url(weights: str | os.PathLike) -> bool:
    """Whether this is the URL of an object and not the path of an existing file."""
    return str(weights).startswith("gs://") and not os.path.lexists(weights)


def local_path(weights: str) -> Path:
    """Downloads the object and returns its local path.

    Raises:
      ValueError: there is no such object, or google-cloud-storage is not installed.
      OSError: it cannot be downloaded.
    """
    return _download(weights)[0]


def resolved(weights: str) -> str:
    """The URL with the generation that it refers to, "gs://BUCKET/NAME#GENERATION".

    Raises:
      ValueError, OSError: see `local_path`.
    """
    return _download(weights)[1]


@dataclasses.dataclass(frozen=True)
class _Object:
    """The parts of an object's URL.

    Attributes:
      url: the URL as the user wrote it.
      bucket: the name of the bucket.
      name: the name of the object in the bucket, such as "weights/vit.npz".
      generation: the version of the object; None is the current one.
    """

    url: str
    bucket: str
    name: str
    generation: int | None

    @property
    def field(self) -> str:
        """The beginning of error messages."""
        return weights_field(self.url)

    @property
    def file(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]

    def beside(self, file: str) -> str:
        """The name of another object in the same folder."""
        return self.name.removesuffix(self.file) + file


def _parse(url: str) -> _Object:
    parts = _URL.fullmatch(url)
    assert parts is not None, f"{url} is not the URL of an object"
    generation = None if parts["generation"] is None else int(parts["generation"])
    target = _Object(url, parts["bucket"], parts["name"], generation)
    if not target.bucket or target.file in ("", ".", "..") or "\0" in url:
        raise ValueError(f"{target.field} {_FORM}; copy a run with `gcloud storage cp -r`")
    if target.file.endswith(INDEX):
        raise ValueError(
            f"{target.field} is the index of several files, and only single files are downloaded: "
            "copy all of them with `gcloud storage cp` and give the path of the index"
        )
    return target


@functools.lru_cache(maxsize=64)
def _download(url: str) -> tuple[Path, str]:
    """Downloads an object; returns its path in the cache and the URL with its generation."""
    target = _parse(url)
    client = _client(target)
    with _naming_failures(target):
        content = _describe(client, target.bucket, target.name, target.generation)
        missing = None if content is not None else _missing(client, target)
    if content is None:
        raise ValueError(missing)
    with _naming_failures(target):
        directory = _directory(target, content.generation)
        _fetch(client, content, directory / target.file)
        _fetch_description(client, target, directory / "config.json")
    return directory / target.file, f"gs://{target.bucket}/{target.name}#{content.generation}"


def _client(target: _Object) -> Any:
    """A client with the user's credentials, or an anonymous one, for public objects."""
    try:
        from google.auth import exceptions
        from google.cloud import storage  # an optional dependency
    except ImportError as error:
        raise ValueError(
            f"{target.field} is in Google Cloud Storage, and google-cloud-storage is not "
            f"installed: {buckets.INSTALL}, or {_COPY}"
        ) from error
    try:
        return storage.Client(project=None)
    except exceptions.DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise ValueError(
                f"{target.field}: GOOGLE_APPLICATION_CREDENTIALS cannot be used ({error}): fix it, "
                "or unset it and run `gcloud auth application-default login`"
            ) from error
        return storage.Client.create_anonymous_client()


@dataclasses.dataclass(frozen=True)
class _Content:
    """What the bucket states about an object before it is downloaded."""

    bucket: str
    name: str
    generation: int
    size: int
    crc32c: str

    def is_in(self, path: Path) -> bool:
        """Whether a file has this content."""
        if path.stat().st_size != self.size:
            return False
        checksum = google_crc32c.Checksum()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                checksum.update(chunk)
        return base64.b64encode(checksum.digest()).decode() == self.crc32c


def _describe(
    client: Any, bucket: str, name: str, generation: int | None = None
) -> _Content | None:
    """What the bucket states about an object; None if there is no such object."""
    from google.api_core.exceptions import NotFound

    blob = client.bucket(bucket).blob(name, generation=generation)
    try:
        blob.reload(retry=buckets.retry())
    except NotFound:
        return None
    if generation not in (None, blob.generation):
        return None
    return _Content(bucket, name, blob.generation, blob.size, blob.crc32c)


def _missing(client: Any, target: _Object) -> str:
    """The error message for an object that does not exist."""
    from google.api_core.exceptions import ClientError, NotFound

    if target.generation is not None and _describe(client, target.bucket, target.name) is not None:
        return (
            f"{target.field}: the object no longer has generation {target.generation}: leave it "
            "out to use the current one"
        )
    try:
        blobs = client.list_blobs(
            target.bucket, prefix=target.beside(""), max_results=1000, retry=buckets.retry()
        )
        names = [blob.name for blob in blobs]
    except NotFound:
        return f"{target.field}: there is no bucket {target.bucket!r}: check the spelling"
    except ClientError:  # permission to read an object does not include listing others
        return f"{target.field} does not exist: check the spelling"
    if any(name.startswith(f"{target.name}/") for name in names):
        return (
            f"{target.field} is a folder, and only single files are downloaded: give a file in it; "
            "copy a run with `gcloud storage cp -r`"
        )
    near = similar(target.name, names) or names[:3]
    there = ", ".join(printable(f"gs://{target.bucket}/{name}") for name in near)
    return f"{target.field} does not exist: {f'there is {there}' if near else 'check the spelling'}"


def _directory(target: _Object, generation: int) -> Path:
    """The cache directory of a generation of an object, created if it does not exist."""
    key = hashlib.blake2b(f"{target.bucket}/{target.name}".encode(), digest_size=12).hexdigest()
    directory = _cache() / key / str(generation)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _cache() -> Path:
    return writing.cache_directory() / "gcs"


def _fetch(client: Any, content: _Content, path: Path) -> None:
    """Downloads an object unless the file already has its content.

    Raises:
      _ChangedError: the download does not match what the bucket stated.
    """
    if path.is_file() and content.is_in(path):
        return
    blob = client.bucket(content.bucket).blob(content.name, generation=content.generation)
    with writing.replacing(path) as temporary:
        # The checksum is of the bytes as stored. The client retries interrupted downloads.
        blob.download_to_filename(
            str(temporary),
            raw_download=True,
            checksum="crc32c",
            retry=buckets.retry(size=content.size),
        )
        if not content.is_in(temporary):  # the client only checks what came with the bytes
            raise _ChangedError


def _fetch_description(client: Any, target: _Object, path: Path) -> None:
    """Downloads the config.json beside an object; deletes the cached file if there is none now."""
    from google.api_core.exceptions import Forbidden, Unauthorized
    from google.auth.exceptions import InvalidOperation

    try:
        content = _describe(client, target.bucket, target.beside(path.name))
    except (Forbidden, Unauthorized, InvalidOperation):  # the reply without permission to list
        content = None
    if content is None:
        path.unlink(missing_ok=True)
    else:
        _fetch(client, content, path)


class _ChangedError(Exception):
    """The download does not match what the bucket stated before."""


@contextlib.contextmanager
def _naming_failures(target: _Object) -> Iterator[None]:
    """Turns the client's errors into errors that name the field, its value and the fix."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, InvalidOperation, TransportError

    try:
        yield
    except TransportError as error:
        raise _connection_error(target, error) from error
    except (_ChangedError, exceptions.NotFound) as error:
        raise OSError(
            f"{target.field} was replaced or deleted during the download: start again; to always "
            "get the same object, give its generation, gs://BUCKET/NAME#GENERATION"
        ) from error
    except (exceptions.Unauthorized, exceptions.Forbidden, GoogleAuthError) as error:
        # An anonymous client raises InvalidOperation if the server asks it to log in.
        reason = "there are none" if isinstance(error, InvalidOperation) else buckets.reason(error)
        raise ValueError(
            f"{target.field} does not exist, or the credentials on this machine may not read it "
            f"({reason}): run `gcloud auth application-default login`, set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file, or give the account of this machine the "
            "role Storage Object Viewer"
        ) from error
    except ValueError as error:
        raise ValueError(f"{target.field} {_FORM} ({buckets.reason(error)})") from error
    except Exception as error:  # network libraries have no common base class
        if buckets.is_of_disk(error):
            raise OSError(
                f"{target.field} cannot be stored in {_cache()} ({buckets.reason(error)}): free "
                "space there, make it writable, or set XDG_CACHE_HOME to another directory"
            ) from error
        raise _connection_error(target, error) from error


def _connection_error(target: _Object, error: Exception) -> OSError:
    return OSError(
        f"{target.field} cannot be downloaded ({buckets.reason(error)}): check the connection and "
        f"start again, or {_COPY}"
    )
