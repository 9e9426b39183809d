"""Where weights are: on this machine, on the Hugging Face hub, or in Google Cloud Storage."""

import os
from pathlib import Path

from pnoise_jax.weights.formats import gcs, hub


def is_remote(weights: str | os.PathLike) -> bool:
    """Whether this is an id of the hub or the URL of an object, and not an existing file."""
    return hub.is_id(weights) or gcs.is_url(weights)


def local_path(weights: str | os.PathLike) -> Path:
    """The path of weights on this machine; remote weights are downloaded first.

    Raises:
      ValueError: there are no such weights, or the extra that downloads them is not installed.
      OSError: they cannot be downloaded.
    """
    if hub.is_id(weights):
        return hub.local_path(str(weights))
    if gcs.is_url(weights):
        return gcs.local_path(str(weights))
    return Path(weights).expanduser()


def resolved_id(weights: str | os.PathLike) -> str:
    """The id with its commit or the URL with its generation, which pin the weights.

    A path is returned as it is.

    Raises:
      ValueError, OSError: see `local_path`.
    """
    if hub.is_id(weights):
        return hub.resolved_id(str(weights))
    if gcs.is_url(weights):
        return gcs.resolved(str(weights))
    return str(weights)
