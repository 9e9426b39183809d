"""A trained run from its work directory."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections

from pnoise_jax.training import workdir as directories
from pnoise_jax.training.checkpoints import Checkpoints
from pnoise_jax.training.experiment import Experiment, build
from pnoise_jax.training.step import TrainState

NOT_OF_WEIGHTS = ("noise.", "evaluation.", "data.")  # what a restored run may be asked anew


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run and its newest whole checkpoint.

    Attributes:
      experiment: what its config describes.
      state: restored, on the mesh's devices.
      step: of the checkpoint.
    """

    experiment: Experiment
    state: TrainState
    step: int


def restore(
    workdir: str | os.PathLike,
    config: ml_collections.ConfigDict | None = None,
    *,
    mesh: jax.sharding.Mesh,
    report: Callable[[str], None] = print,
) -> Run:
    """Restores the newest whole checkpoint in ``workdir``; changes nothing there.

    Args:
      workdir: one that `train` has filled.
      config: the run's, whose noise, evaluation and data sections may differ; None takes the run's
        own from the work directory.
      mesh: the devices.
      report: takes a sentence about a broken checkpoint.

    Raises:
      ValueError, OSError: bad config, data or work directory, named; FileNotFoundError where there
        is no run or no checkpoint.
    """
    stored = directories.read_config(workdir)
    path = Path(workdir).expanduser().absolute()
    if config is None:
        config = stored
    else:
        directories.check(path, config, but=NOT_OF_WEIGHTS)
    experiment = build(config)
    checkpoints = Checkpoints(path / "checkpoints", keep=config.checkpoint.keep, report=report)
    with contextlib.closing(checkpoints):
        restored = checkpoints.restore(experiment.abstract_state(mesh), set_aside=False)
    if restored is None:
        raise FileNotFoundError(f"{path / 'checkpoints'} holds no checkpoint; train there first")
    return Run(experiment, *restored)
