"""Writes the numbers of an evaluation to evaluation.json, or a file named by the measurement."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from pnoise_jax import parallel, writing
from pnoise_jax.evaluation import Measure
from pnoise_jax.runs import RunDirectory, checksums
from pnoise_jax.terminal import printable
from pnoise_jax.training.configuration.config import NOT_OF_RESULTS
from pnoise_jax.training.configuration.fields import flatten
from pnoise_jax.training.evaluating.restore import Run
from pnoise_jax.training.run_files import run_config
from pnoise_jax.training.run_files.starting_weights import find_fingerprint, noted_weights


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of `write`.

    Attributes:
      file: the path of the report.
      earlier: the content of the report of the same measurement that it replaces, if any.
      moved: the new path of the evaluation.json of another measurement, if it was moved.
      reason: why the report of a run with its own settings is not evaluation.json, if so.
    """

    file: Path
    earlier: dict[str, Any] | None
    moved: Path | None
    reason: str | None = None

    def describe(self, rows: Sequence[Mapping[str, Any]], *, measure: Measure) -> str:
        """A sentence on where the rows are, and whether they were measured before.

        Args:
          rows: the rows of the report.
          measure: the measure to show if the numbers differ.
        """
        text = f"wrote {printable(str(self.file))}"
        if self.reason is not None:
            text += f" ({self.reason})"
        if self.moved is not None:
            text += (
                "; evaluation.json was the report of another measurement, and was moved to "
                f"{printable(str(self.moved))}"
            )
        if not self.earlier or not self.earlier.get("rows"):
            return text
        if self.earlier["rows"] == list(rows):
            return f"{text}: the same measurement as before, with the same numbers"
        name, digits = measure.name, measure.digits
        before = ", ".join(f"{row[name]:.{digits}f}" for row in self.earlier["rows"])
        return (
            f"{text}: the same measurement as before, with other numbers ({measure.label} was "
            f"{before} on {self.earlier.get('device')} with jax {self.earlier.get('jax')})"
        )


def measured(run: Run, path: Path, arrays: str) -> dict[str, Any]:
    """Everything that the numbers of a run's evaluation depend on, except for the machine.

    Args:
      run: the run to evaluate.
      path: its work directory, which contains a fingerprint of any weights that it started from.
      arrays: the digest of its variables from `digest_arrays`.
    """
    config, test_data = run.experiment.config, run.experiment.test_data
    labels = hashlib.sha256(test_data.labels.tobytes())
    if test_data.label_sets is not None:
        labels.update(test_data.label_sets.tobytes())
    labels.update("\n".join(test_data.class_names or ()).encode("utf-8", "surrogatepass"))
    return {
        "config": fields_of_results(config),
        "step": run.step,
        "weights": content_of_weights(config.weights, path),
        "arrays": arrays,
        "labels": labels.hexdigest()[:16],
        "data": [test_data.version, test_data.content],
    }


def digest_arrays(variables: Mapping[str, Any]) -> str:
    """A digest of the evaluated variables.

    The same config may train different weights on another machine. All hosts must call this, since
    each may have only a part of an array.
    """
    total = hashlib.blake2b(digest_size=8)
    for name, array in checksums.named_leaves(variables):
        total.update(json.dumps([name, *checksums.kind(array)]).encode())
        total.update(np.ascontiguousarray(parallel.whole_on_host(array)).tobytes())
    return total.hexdigest()


def find(path: Path, run: Run, arrays: str) -> dict[str, Any] | None:
    """The report of this measurement if `write` has written it before, else None."""
    digest = _measurement(run, path, arrays)
    directory = RunDirectory(path)
    for file in (directory.evaluation, directory.evaluations / f"{_describe(run)}-{digest}.json"):
        stored = _read(file)
        if stored and stored.get("measurement") == digest and stored.get("rows"):
            return stored
    return None


def write(
    path: Path,
    run: Run,
    rows: Sequence[Mapping[str, Any]],
    *,
    arrays: str,
    final: bool,
    show: Callable[[str], None],
    **context: Any,
) -> Report:
    """Writes the rows and their context to a file for this measurement only.

    Args:
      path: the directory of the report.
      run: the evaluated run, from that work directory or another.
      rows: the rows of the standard report.
      arrays: the digest of the run's variables from `digest_arrays`.
      final: whether this is the report at the end of the training in that directory.
      show: called with the report as text if it cannot be written, so that it is not lost.
      **context: more content of the file.

    Raises:
      OSError: the report cannot be written.
    """
    content = {"measurement": _measurement(run, path, arrays), **context, "rows": list(rows)}
    try:
        return _write(path, run, content, final)
    except OSError as error:
        show(json.dumps(content, indent=2))
        raise OSError(
            f"the report cannot be written to {str(path)!r} ({error.strerror or error}): it is "
            "printed above instead, as the JSON of the file"
        ) from error


def _measurement(run: Run, path: Path, arrays: str) -> str:
    """A digest that identifies this measurement."""
    text = json.dumps(measured(run, path, arrays), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _write(path: Path, run: Run, content: dict[str, Any], final: bool) -> Report:
    digest, directory = content["measurement"], RunDirectory(path)
    file, stored = directory.evaluation, _read(directory.evaluation)
    moved, reason = None, None
    is_own = _is_own(path, run.experiment.config)
    is_other = stored is not None and stored.get("measurement") != digest
    if is_other and _is_replaced(directory, stored, run, is_own=is_own, final=final):
        moved, stored, is_other = _set_aside(file, stored), None, False
    if stored is None and is_own and not run.is_finished:
        reason = (
            f"the run has reached step {run.step} of {run.total}, and {file.name} is for its end"
        )
    if is_other or (stored is None and (reason or not is_own)):
        file = directory.evaluations / f"{_describe(run)}-{digest}.json"
        file.parent.mkdir(exist_ok=True)
        stored = _read(file)
    writing.replace_file(file, json.dumps(content, indent=2) + "\n")
    return Report(file, stored, moved, reason)


def _is_replaced(
    directory: RunDirectory,
    stored: Mapping[str, Any] | None,
    run: Run,
    *,
    is_own: bool,
    final: bool,
) -> bool:
    """Whether the evaluation.json of another measurement makes way for the end of this run."""
    step = (stored or {}).get("step")
    is_stale = directory.has_run() and run.is_finished and step not in (None, run.step)
    return (is_own and final) or (is_stale and (is_own or final))


def require_places(path: Path, *, named: str) -> None:
    """Raises OSError, before long work, if a report could not be written."""
    run = RunDirectory(path)
    files, directories = (run.evaluation.name,), (run.evaluations.name,)
    writing.require_places(path, named=named, files=files, directories=directories)


def fields_of_results(config: ml_collections.ConfigDict) -> dict[str, Any]:
    left_out = (*NOT_OF_RESULTS, "weights")
    fields = {k: v for k, v in flatten(config) if not k.startswith(left_out)}
    return fields | {"weights_head": config.weights_head}


def content_of_weights(path: str | None, workdir: Path) -> str | None:
    """A string that identifies the weights that a run starts from; None if there are none."""
    if path is None:
        noted = noted_weights(workdir)
        return None if noted is None else noted[1]
    noted = noted_weights(workdir)
    if noted is not None and noted[0] == path:
        return noted[1]
    return find_fingerprint(path) or path


def _is_own(path: Path, config: ml_collections.ConfigDict) -> bool:
    """Whether the config gives the results of the run in a directory, or there is no run."""
    try:
        return fields_of_results(run_config.read_config(path)) == fields_of_results(config)
    except FileNotFoundError:
        return True
    except (ValueError, OSError):  # damaged since the start: no reason to lose the numbers
        return False


def _describe(run: Run) -> str:
    """The step, the data, the noise and so on: a part of a file's name."""
    config = run.experiment.config
    section = config.evaluation
    noises = [config.noise, *config.noise.others.values()]
    named = [n for each in noises if (n := each.preset or each.name) not in (None, "none")]
    parts = [
        f"step_{run.step}" if run.step else "as_they_are",
        config.data.name,
        config.data.test_split,
        "_and_".join(named) or "clean",
        f"batch_{section.batch_size}",
        f"seed_{section.seed}",
    ]
    parts += [f"views_{section.views}"] if section.views > 1 else []
    parts += [f"draws_{section.draws}"] if section.draws > 1 else []
    parts += [f"classes_{section.classes}"] if section.classes != "all" else []
    return writing.file_name(",".join(parts))


def _set_aside(file: Path, stored: Mapping[str, Any] | None) -> Path:
    digest = (stored or {}).get("measurement")
    if not isinstance(digest, str) or not digest.isalnum():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    new = RunDirectory(file.parent).evaluations / f"earlier-{digest}.json"
    new.parent.mkdir(exist_ok=True)
    number = 1
    while new.exists():
        number += 1
        new = new.with_name(f"earlier-{digest}-{number}.json")
    writing.move_to_new(file, new)
    return new


def _read(file: Path) -> dict[str, Any] | None:
    """The content of a report; {} if the file is not a report, None if there is no file."""
    try:
        stored = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, OSError):
        return {}
    return stored if isinstance(stored, dict) else {}
