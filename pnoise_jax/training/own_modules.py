"""Where a run's own model, noise, data and task are defined: noted beside its config.

The config names them alone, as "module:Class" or by a name that a module of the user's registers.
The directory that is noted is said where the module is not found; it is not searched by itself, as
what is in a directory that comes with a run may be anybody's.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from pnoise_jax import writing
from pnoise_jax.data import DATASETS
from pnoise_jax.models import MODELS
from pnoise_jax.noise import NOISES
from pnoise_jax.registry import Origin
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training.task_registry import TASKS

_SECTIONS = {"model": MODELS, "noise": NOISES, "data": DATASETS, "task": TASKS}


def note(path: Path, config: ml_collections.ConfigDict) -> None:
    """Writes down in which modules a config's own model, noise, data and task are defined, if any.

    Args:
      path: a work directory.
      config: of the run.
    """
    found: dict[str, Any] = {}
    named = {section: (config[section], registry) for section, registry in _SECTIONS.items()}
    others = config.noise.others.items()
    named |= {f"noise.others.{other}": (section, NOISES) for other, section in others}
    for place, (section, registry) in named.items():
        name = section.get("name")
        origin = None if name is None else registry.origin(name)
        if origin is not None:
            found[place] = {"name": name, **dataclasses.asdict(origin)}
    if found:
        writing.replace_file(RunDirectory(path).modules, json.dumps(found, indent=2) + "\n")
    else:
        (RunDirectory(path).modules).unlink(missing_ok=True)


def remember(path: Path) -> None:
    """Lets the names that a run has noted be found; a note that cannot be read helps nobody."""
    try:
        noted = json.loads((RunDirectory(path).modules).read_text())
    except (OSError, ValueError, RecursionError):
        return
    for place, found in noted.items() if isinstance(noted, Mapping) else ():
        registry = _SECTIONS.get(place.partition(".")[0])
        if registry is None or not isinstance(found, Mapping):
            continue
        words = [found.get(word) for word in ("name", "module", "directory")]
        match words:
            case [str() as name, str() as module, str() as directory]:
                registry.remember(name, Origin(module, directory))
