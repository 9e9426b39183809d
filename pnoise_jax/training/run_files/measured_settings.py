"""Notes, next to a run's config, with which settings its rows were measured after resuming.

A run may be resumed with other settings of its evaluation, because they do not affect the weights.
Its config.json keeps those of its start, but the rows of metrics.jsonl have the same names.
"""

import json
from pathlib import Path
from typing import Any

import jax
import ml_collections

from pnoise_jax import writing
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training.configuration.field_kinds import Affects
from pnoise_jax.training.configuration.fields import affecting, flatten
from pnoise_jax.training.run_files import run_config

_FIELDS = affecting(Affects.RESULTS)


def note_changes(path: Path, config: ml_collections.ConfigDict, step: int) -> list[str]:
    """Notes the settings in a file if they differ from those before; on the first host only.

    Args:
      path: the work directory of a run, which is resumed.
      config: the config with which it is resumed.
      step: the step after which it is resumed; notes of this and later steps are replaced.

    Returns:
      A sentence for the user that names each change; [] if there is none.
    """
    directory = RunDirectory(path)
    if jax.process_index() != 0 or not directory.has_run():
        return []
    file = directory.evaluation_settings
    noted = _read(file)
    kept = [note for note in noted if note["step"] < step]
    before = _settings(run_config.read_config(path)) | (kept[-1] if kept else {})
    now = _settings(config)
    changes = [
        f"{field}: {before[field]!r} before, {value!r} now"
        for field, value in now.items()
        if before[field] != value
    ]
    if changes:
        kept.append({"step": step, **now})
    if kept != noted:
        writing.replace_file(file, "".join(json.dumps(note) + "\n" for note in kept))
    if not changes:
        return []
    return [
        f"note: evaluations from step {step} on have other settings ({'; '.join(changes)}), so "
        f"their rows in {directory.metrics.name} are not comparable with earlier ones; "
        f"{file.name} lists the settings by step"
    ]


def _settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    fields = dict(flatten(config))
    return {field: fields[field] for field in _FIELDS}


def _read(file: Path) -> list[dict[str, Any]]:
    """The notes, from the first step; without those that are damaged."""
    notes = []
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        try:
            note = json.loads(line)
            if isinstance(note["step"], int):
                notes.append(note)
        except (ValueError, KeyError, TypeError):
            continue
    return notes
