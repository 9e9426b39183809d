"""Weights on the Hugging Face hub, by id: "hf_hub:OWNER/NAME" or "hf_hub:OWNER/NAME@REVISION".

huggingface_hub downloads the files into its cache, in one directory per commit. An id is resolved
once per process: the weights that are read are those that were matched, even if the branch moves in
between.
"""

import functools
import os
import re
from pathlib import Path

from pnoise_jax.weights.errors import weights_field
from pnoise_jax.weights.formats.safetensors_file import INDEX

INSTALL = 'pip install "pnoise_jax[hub]"'
_ID = re.compile(r"hf[_-]hub:(?P<repository>[^@]*)(?:@(?P<revision>.*))?", re.DOTALL)
_FORM = "is not an id: give hf_hub:OWNER/NAME, or hf_hub:OWNER/NAME@REVISION"
_WHOLE = "model.safetensors"
_SHARDED = f"model{INDEX}"


def is_id(weights: str | os.PathLike) -> bool:
    """Whether this is an id of the hub and not the path of an existing file."""
    return bool(_ID.fullmatch(str(weights))) and not os.path.lexists(weights)


def local_path(weights: str) -> Path:
    """Downloads the weights of an id and returns their local path.

    Raises:
      ValueError: the hub has no such weights, or they are not safetensors, or huggingface_hub is
        not installed.
      OSError: they cannot be downloaded.
    """
    return _download(weights)


def resolved_id(weights: str) -> str:
    """The id with the commit that it refers to, "hf_hub:OWNER/NAME@COMMIT".

    Raises:
      ValueError, OSError: see `local_path`.
    """
    repository, _ = _parts(weights)
    return f"hf_hub:{repository}@{local_path(weights).parent.name}"


def _parts(weights: str) -> tuple[str, str | None]:
    """The repository and the revision of an id, both unchecked."""
    parts = _ID.fullmatch(weights)
    assert parts is not None, f"{weights} is not an id"
    return parts["repository"], parts["revision"]


@functools.lru_cache(maxsize=64)
def _download(weights: str) -> Path:
    """Downloads the file, or the index and its files, into the cache directory of the commit."""
    field = weights_field(weights)
    repository, revision = _parts(weights)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository, re.ASCII) or revision == "":
        raise ValueError(f"{field} {_FORM}")
    snapshot = _snapshot(field, repository, revision, ("config.json", _WHOLE, _SHARDED))
    if (snapshot / _WHOLE).exists():
        return snapshot / _WHOLE
    if (snapshot / _SHARDED).exists():
        _snapshot(field, repository, snapshot.name, ("model-*-of-*.safetensors",))
        return snapshot / _SHARDED
    raise ValueError(
        f"{field} has no {_WHOLE} at commit {snapshot.name}, and no other format is read from the "
        "hub: choose another repository or revision, or convert its weights and give the file's "
        "path"
    )


def _snapshot(field: str, repository: str, revision: str | None, names: tuple[str, ...]) -> Path:
    """Downloads the named files that exist; returns their directory."""
    try:
        import huggingface_hub  # an optional dependency
        from huggingface_hub import errors
    except ImportError as error:
        raise ValueError(
            f"{field} is on the Hugging Face hub, and huggingface_hub is not installed: "
            f"{INSTALL}, or download the file yourself and give its path"
        ) from error
    try:
        directory = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(names), library_name="pnoise_jax"
        )
    except errors.HFValidationError as error:
        raise ValueError(f"{field} {_FORM} ({error})") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{field}: {repository} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:  # also raised if a login is needed
        raise ValueError(
            f"{field}: the hub has no {repository!r} that you may read: check the spelling; for a "
            "private or gated model, accept its terms there and log in with `hf auth login`"
        ) from error
    except Exception as error:  # network libraries have no common base class
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise OSError(
            f"{field} cannot be downloaded ({reason}): check the connection, or run "
            f"`hf download {repository}` on a connected machine and copy its cache"
        ) from error
    return Path(directory)
