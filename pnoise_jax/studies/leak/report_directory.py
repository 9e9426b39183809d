"""The directory of an audit's report, which must not contain another audit."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax import training
from pnoise_jax.runs import make_writable
from pnoise_jax.studies.leak.audit import Audit
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.seed_runs import find_runs
from pnoise_jax.studies.reporting.report import require_own
from pnoise_jax.training import reports
from pnoise_jax.writing import file_name, make_directory, require_places


def describe(
    experiment: training.Experiment,
    path: Path,
    seeds: Sequence[int],
    noises: tuple[AuditedNoise, ...],
) -> dict[str, Any]:
    """Describes what identifies an audit of runs, in addition to its settings and labels."""
    runs = find_runs(path)
    weights_of = next(iter(runs.values()), path)
    fields = reports.fields_of_results(experiment.config)
    return {
        "config": {k: v for k, v in fields.items() if k != "seed"},
        "weights": reports.content_of_weights(experiment.config.weights, weights_of),
        "classes": experiment.evaluated_data.class_names,
        "label_sets": _digest(experiment.evaluated_data.label_sets),
        "noises": [repr(each.injection) for each in noises],
        "seeds": list(seeds),
    }


def _digest(label_sets: np.ndarray | None) -> str | None:
    return None if label_sets is None else hashlib.sha256(label_sets.tobytes()).hexdigest()[:16]


def open_directory(
    path: Path,
    out: str | os.PathLike | None,
    measurement: str,
    noises: tuple[AuditedNoise, ...],
    seeds: Sequence[int],
) -> Path:
    """Creates the report's directory, which must not contain another audit, before any work."""
    runs = [f"seed_{seed}" for seed in seeds]
    require_places(path, named=f"--workdir={str(path)!r}", directories=runs)
    if out is not None:
        directory = make_writable(out, flag="out")
        require_own(directory, measurement, named=f"--out={str(out)!r}")
        return directory
    directory = path / "audit"
    make_writable(path)
    require_places(path, named=f"--workdir={str(path)!r}", directories=("audit", "audits"))
    named = f"--workdir={str(path)!r}: {directory}"
    try:
        require_own(directory, measurement, named=named)
    except FileExistsError:
        name = file_name(f"{noises[0].name},{len(noises)}_noises", longest=60)
        directory = path / "audits" / f"{name}-{measurement}"
        named = f"--workdir={str(path)!r}: {directory}"
        require_own(directory, measurement, named=named)
    return make_directory(directory, named=named)


def write(audit: Audit, directory: Path) -> list[Path]:
    """Writes the report; if that fails, writes it to a temporary directory and raises OSError."""
    try:
        return audit.write(directory)
    except OSError as error:
        reason = f"the report cannot be written to {str(directory)!r} ({error.strerror or error})"
        try:
            instead = tempfile.mkdtemp(prefix="audit-")
            audit.write(instead)
        except OSError:
            raise OSError(f"{reason}; its verdicts are printed above") from error
        raise OSError(f"{reason}: it is in {instead} instead; move it") from error
