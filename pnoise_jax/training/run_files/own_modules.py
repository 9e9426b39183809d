"""Records, next to a run's config, the modules of the user's model, noise, data and task.

The config only names them, as "module:Class" or by a name that a user's module registers. If the
module is not found, the error names the noted directory. That directory is not searched
automatically, since code in a directory that comes with a run cannot be trusted.
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
    """Writes the modules that define the user's model, noise, data and task, if there are any.

    Args:
      path: a work directory.
      config: the run's config.
    """
    origins: dict[str, Any] = {}
    named = {section: (config[section], registry) for section, registry in _SECTIONS.items()}
    others = config.noise.others.items()
    named |= {f"noise.others.{other}": (section, NOISES) for other, section in others}
    for place, (section, registry) in named.items():
        name = section.get("name")
        origin = None if name is None else registry.origin(name)
        if origin is not None:
            origins[place] = {"name": name, **dataclasses.asdict(origin)}
    if origins:
        writing.replace_file(RunDirectory(path).modules, json.dumps(origins, indent=2) + "\n")
    else:
        (RunDirectory(path).modules).unlink(missing_ok=True)


def remember(path: Path) -> None:
    """Makes the registries remember the modules that a run has noted; ignores unreadable notes."""
    try:
        noted = json.loads((RunDirectory(path).modules).read_text())
    except (OSError, ValueError, RecursionError):
        return
    for place, origin in noted.items() if isinstance(noted, Mapping) else ():
        registry = _SECTIONS.get(place.partition(".")[0])
        if registry is None or not isinstance(origin, Mapping):
            continue
        values = [origin.get(key) for key in ("name", "module", "directory")]
        match values:
            case [str() as name, str() as module, str() as directory]:
                registry.remember(name, Origin(module, directory))
