"""Restores a run from its work directory, or imports weights, to evaluate without training."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
from flax import traverse_util

from pnoise_jax import weights
from pnoise_jax.parallel import on_all_hosts
from pnoise_jax.runs import Checkpoints, RunDirectory
from pnoise_jax.terminal import say
from pnoise_jax.training.configuration.durations import steps_of
from pnoise_jax.training.evaluating import overlap
from pnoise_jax.training.evaluating.imported import read_to_devices, warn_of_preprocessing
from pnoise_jax.training.experiment import Experiment, build
from pnoise_jax.training.loop import agreement
from pnoise_jax.training.run_files import data_version, run_config
from pnoise_jax.training.step.precision import config_types
from pnoise_jax.training.step.step import TrainState

# Prefixes of fields that may differ from those of a run when it is restored.
NOT_OF_WEIGHTS = ("noise.", "evaluation.", "data.", "weights")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run and its newest whole checkpoint, or weights that were trained elsewhere.

    Attributes:
      experiment: what the config describes.
      variables: the model's variables, on the mesh's devices; the moving average if there is one.
      step: the step of the checkpoint; 0 for imported weights.
      weights: "params", "ema" for a moving average, or a description of imported weights.
      notes: sentences for the user. For imported weights: which images they expect, and how the
        config's differ. For a run: how its classes were matched with the data's, and the like.
      total: the number of steps of the whole run; None for imported weights, or if it is unknown.
    """

    experiment: Experiment
    variables: dict[str, Any]
    step: int
    weights: str
    notes: tuple[str, ...] = ()
    total: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the training has reached its end, as far as is known."""
        return self.total is None or self.step >= self.total

    @classmethod
    def of(cls, experiment: Experiment, state: TrainState) -> "Run":
        """The result of a training run."""
        weights = "params" if state.ema is None else "ema"
        return cls(experiment, state.variables(), int(state.step), weights)


@config_types()
def restore(
    workdir: str | os.PathLike,
    config: ml_collections.ConfigDict | None = None,
    *,
    mesh: jax.sharding.Mesh,
    report: Callable[[str], None] = say,
) -> Run:
    """Restores the newest whole checkpoint in ``workdir``; changes nothing there.

    Args:
      workdir: the work directory of a run of `train`.
      config: the run's config; its noise, evaluation and data sections may differ. None uses the
        one in the work directory.
      mesh: the devices.
      report: called with sentences about the data and about broken checkpoints.

    Raises:
      ValueError, OSError: the config, the data or the work directory is bad; names what is wrong.
        FileNotFoundError if there is no run or no checkpoint.
    """
    stored = run_config.read_config(workdir)
    path = RunDirectory.at(workdir).path
    if config is None:
        config = stored
        on_all_hosts(lambda: data_version.check(path, stored, stored))
    else:
        on_all_hosts(lambda: run_config.check(path, config, but=NOT_OF_WEIGHTS))
    experiment, notes = data_version.match_run(build(config), path)
    agreement.require_same_run(experiment, task="evaluate")
    notes += data_version.describe_changes(experiment, stored, path)
    notes += on_all_hosts(lambda: overlap.describe_overlap(experiment, stored, path))
    for sentence in notes:
        report(sentence)
    on_all_hosts(lambda: _require_checkpoints(path))
    checkpoints = Checkpoints(path, keep=config.checkpoint.keep, report=report)
    with contextlib.closing(checkpoints):
        restored = checkpoints.restore(experiment.abstract_state(mesh), set_aside=False)
    if restored is None:
        raise FileNotFoundError(
            f"{checkpoints.directory} contains no checkpoint; train there first"
        )
    state, _ = restored
    total = on_all_hosts(lambda: _total_steps(stored, path))
    return dataclasses.replace(Run.of(experiment, state), notes=notes, total=total)


def _total_steps(config: ml_collections.ConfigDict, path: Path) -> int | None:
    """The steps of a run, computed without its training data; None if that is not possible."""
    if config.steps:
        return config.steps
    examples = data_version.read(path).get("train_examples")
    if not isinstance(examples, int):  # an older run
        return None
    return steps_of(
        config.duration, field="duration", examples=examples, batch_size=config.batch_size
    )


def _require_checkpoints(path: Path) -> None:
    """Raises OSError if a run has no directory of checkpoints; works without write permission."""
    place = RunDirectory(path).checkpoints
    if os.path.lexists(place) and not place.is_dir():
        raise NotADirectoryError(
            f"{place} is not a directory: put the run's directory of checkpoints back"
        )
    if not place.is_dir():
        raise FileNotFoundError(f"{place} contains no checkpoint; train there first")


@config_types()
def import_weights(
    experiment: Experiment, found: weights.Weights, *, mesh: jax.sharding.Mesh
) -> Run:
    """The model of an experiment with imported weights, including their head.

    Args:
      experiment: the experiment; its training split need not exist.
      found: the weights from `match_on_all_hosts` with head="keep".
      mesh: the devices.

    Raises:
      ValueError, OSError: the weights cannot be read.
    """
    flat = read_to_devices(found, mesh, experiment.matmul_split)
    variables = {"batch_stats": {}} | traverse_util.unflatten_dict(flat, sep="/")
    warnings = [f"note: {warning}" for warning in warn_of_preprocessing(experiment, found)]
    assumed = filter(None, [found.describe_assumed()])
    source = experiment.config.weights
    shared = on_all_hosts(lambda: overlap.describe_overlap_of_weights(experiment, source))
    notes = (*assumed, found.describe_preprocessing(), *warnings, *shared)
    return Run(experiment, variables, 0, found.describe(), notes)
