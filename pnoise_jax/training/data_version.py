"""Which version of an embedded data set a run has used, noted beside its config.

The config names the data set alone. Another version may have other classes under the same labels,
so that a run must not go on with it, nor be evaluated on it.
"""

import json
from pathlib import Path

import ml_collections

from pnoise_jax import data, writing

_FILE = "data.json"
_UNNOTED = "1.0.0"  # what runs have used that are older than these notes


def note(path: Path, config: ml_collections.ConfigDict) -> None:
    """Writes down the version in use; nothing for data sets that are not embedded."""
    version = data.embedded_version(config.data.name)
    file = path / _FILE
    if version is None:
        file.unlink(missing_ok=True)
    else:
        content = json.dumps({"name": config.data.name, "version": version}) + "\n"
        writing.replace_file(file, content)


def check(path: Path, stored: ml_collections.ConfigDict, config: ml_collections.ConfigDict) -> None:
    """Checks that what was done in ``path`` used the version that ``config`` would use.

    Args:
      path: a work directory.
      stored: its config.
      config: the one asked for; with another data set there is nothing to compare.

    Raises:
      ValueError: it used another version.
    """
    name = config.data.name
    now = data.embedded_version(name)
    if now is None or stored.data.name != name:
        return
    file = path / _FILE
    then = json.loads(file.read_text())["version"] if file.exists() else _UNNOTED
    if then != now:
        raise ValueError(
            f"--workdir={str(path)!r} has used data.name={name!r} in version {then}, and this "
            f"program has version {now}, whose classes may be others: choose another directory, or "
            "delete this one"
        )
