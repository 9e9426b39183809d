"""Weights in Google Cloud Storage: "gs://BUCKET/NAME", or "gs://BUCKET/NAME#GENERATION".

The object and the config.json beside it are downloaded into a cache, and compared with the sizes
and the checksums that the bucket states. A URL is resolved once per process: what is matched is
what is read, even if the object is replaced in between.
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
    """The path of the downloaded object.

    Raises:
      ValueError: there is no such object, or google-cloud-storage is not installed.
      OSError: it cannot be downloaded.
    """
    return _download(weights)[0]


def resolved(weights: str) -> str:
    """The URL with the generation that it refers to, "gs://BUCKET/NAME#GENERATION".

    Raises:
      ValueError, OSError: as `local_path`.
    """
    return _download(weights)[1]


@dataclasses.dataclass(frozen=True)
class _Object:
    """An object as a URL names it.

    Attributes:
      url: with the generation, as given.
      bucket: the name of its bucket.
      name: in the bucket, such as "weights/vit.npz".
      generation: which of its versions; None is the current one.
    """

    url: str
    bucket: str
    name: str
    generation: int | None

    @property
    def field(self) -> str:
        """How messages begin."""
        return weights_field(self.url)

    @property
    def file(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]

    def beside(self, file: str) -> str:
        """The name of another object in the same folder."""
        return self.name.removesuffix(self.file) + file


def _parse(url: str) -> _Object:
    parts = _URL.fullmatch(url)
    assert parts is not None, f"{url} is no URL of an object"
    generation = None if parts["generation"] is None else int(parts["generation"])
    asked = _Object(url, parts["bucket"], parts["name"], generation)
    if not asked.bucket or asked.file in ("", ".", "..") or "\0" in url:
        raise ValueError(f"{asked.field} {_FORM}; a run is copied with `gcloud storage cp -r`")
    if asked.file.endswith(INDEX):
        raise ValueError(
            f"{asked.field} is the index of several files, and only single files are downloaded: "
            "copy all of them with `gcloud storage cp`, and give the path of the index"
        )
    return asked


@functools.lru_cache(maxsize=64)
def _download(url: str) -> tuple[Path, str]:
    """The file in the cache, and the URL with its generation."""
    asked = _parse(url)
    client = _client(asked)
    with _naming_failures(asked):
        content = _describe(client, asked.bucket, asked.name, asked.generation)
        missing = None if content is not None else _missing(client, asked)
    if content is None:
        raise ValueError(missing)
    with _naming_failures(asked):
        directory = _directory(asked, content.generation)
        _fetch(client, content, directory / asked.file)
        _fetch_description(client, asked, directory / "config.json")
    return directory / asked.file, f"gs://{asked.bucket}/{asked.name}#{content.generation}"


def _client(asked: _Object) -> Any:
    """A client with the user's credentials; without them, for what everybody may read."""
    try:
        from google.auth import exceptions
        from google.cloud import storage  # an extra
    except ImportError as error:
        raise ValueError(
            f"{asked.field} is in Google Cloud Storage, and google-cloud-storage is not installed: "
            f"{buckets.INSTALL}, or {_COPY}"
        ) from error
    try:
        return storage.Client(project=None)
    except exceptions.DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise ValueError(
                f"{asked.field}: GOOGLE_APPLICATION_CREDENTIALS cannot be used ({error}): correct "
                "it, or unset it and run `gcloud auth application-default login`"
            ) from error
        return storage.Client.create_anonymous_client()


@dataclasses.dataclass(frozen=True)
class _Content:
    """What the bucket states of an object, before it is downloaded."""

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
    """What the bucket states of an object; None if there is none."""
    from google.api_core.exceptions import NotFound

    blob = client.bucket(bucket).blob(name, generation=generation)
    try:
        blob.reload(retry=buckets.retry())
    except NotFound:
        return None
    if generation not in (None, blob.generation):
        return None
    return _Content(bucket, name, blob.generation, blob.size, blob.crc32c)


def _missing(client: Any, asked: _Object) -> str:
    """What to say of an object that is not there."""
    from google.api_core.exceptions import ClientError, NotFound

    if asked.generation is not None and _describe(client, asked.bucket, asked.name) is not None:
        return (
            f"{asked.field}: the object has no generation {asked.generation} any more: leave it "
            "out to take the current one"
        )
    try:
        found = client.list_blobs(
            asked.bucket, prefix=asked.beside(""), max_results=1000, retry=buckets.retry()
        )
        names = [blob.name for blob in found]
    except NotFound:
        return f"{asked.field}: there is no bucket {asked.bucket!r}: check the spelling"
    except ClientError:  # who may read an object may not always list others
        return f"{asked.field} does not exist: check the spelling"
    if any(name.startswith(f"{asked.name}/") for name in names):
        return (
            f"{asked.field} is a folder, and only single files are downloaded: give a file in it; "
            "a run is copied with `gcloud storage cp -r`"
        )
    near = similar(asked.name, names) or names[:3]
    there = ", ".join(printable(f"gs://{asked.bucket}/{name}") for name in near)
    return f"{asked.field} does not exist: {f'there is {there}' if near else 'check the spelling'}"


def _directory(asked: _Object, generation: int) -> Path:
    """Where the cache has a generation of an object: created, and empty at first."""
    key = hashlib.blake2b(f"{asked.bucket}/{asked.name}".encode(), digest_size=12).hexdigest()
    directory = _cache() / key / str(generation)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _cache() -> Path:
    return writing.cache_directory() / "gcs"


def _fetch(client: Any, content: _Content, path: Path) -> None:
    """Downloads an object unless the file has its content already.

    Raises:
      _ChangedError: what was downloaded is not what the bucket stated.
    """
    if path.is_file() and content.is_in(path):
        return
    blob = client.bucket(content.bucket).blob(content.name, generation=content.generation)
    with writing.replacing(path) as temporary:
        # Bytes as they are stored, which the checksum is of. The client repeats what breaks off.
        blob.download_to_filename(
            str(temporary),
            raw_download=True,
            checksum="crc32c",
            retry=buckets.retry(size=content.size),
        )
        if not content.is_in(temporary):  # the client compares with what came with the bytes
            raise _ChangedError


def _fetch_description(client: Any, asked: _Object, path: Path) -> None:
    """Downloads the config.json beside an object; deletes the file where there is none now."""
    from google.api_core.exceptions import Forbidden, Unauthorized
    from google.auth.exceptions import InvalidOperation

    try:
        content = _describe(client, asked.bucket, asked.beside(path.name))
    except (Forbidden, Unauthorized, InvalidOperation):  # said to those who may not list objects
        content = None
    if content is None:
        path.unlink(missing_ok=True)
    else:
        _fetch(client, content, path)


class _ChangedError(Exception):
    """What was downloaded is not what the bucket described before."""


@contextlib.contextmanager
def _naming_failures(asked: _Object) -> Iterator[None]:
    """Turns what the client raises into errors that name the field, its value and the fix."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, InvalidOperation, TransportError

    try:
        yield
    except TransportError as error:
        raise _connection_error(asked, error) from error
    except (_ChangedError, exceptions.NotFound) as error:
        raise OSError(
            f"{asked.field} was replaced or deleted while it was downloaded: start again; to "
            "always get the same object, give its generation, gs://BUCKET/NAME#GENERATION"
        ) from error
    except (exceptions.Unauthorized, exceptions.Forbidden, GoogleAuthError) as error:
        # Which an anonymous client raises when it is asked to log in.
        reason = "there are none" if isinstance(error, InvalidOperation) else buckets.reason(error)
        raise ValueError(
            f"{asked.field} does not exist, or may not be read with the credentials found here "
            f"({reason}): run `gcloud auth application-default login`, set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file, or give the account of this machine the "
            "role Storage Object Viewer"
        ) from error
    except ValueError as error:
        raise ValueError(f"{asked.field} {_FORM} ({buckets.reason(error)})") from error
    except Exception as error:  # network libraries have no common base class
        if buckets.is_of_disk(error):
            raise OSError(
                f"{asked.field} cannot be kept in {_cache()} ({buckets.reason(error)}): make room "
                "there or make it writable, or set XDG_CACHE_HOME to another directory"
            ) from error
        raise _connection_error(asked, error) from error


def _connection_error(asked: _Object, error: Exception) -> OSError:
    return OSError(
        f"{asked.field} cannot be downloaded ({buckets.reason(error)}): check the connection and "
        f"start again, or {_COPY}"
    )
