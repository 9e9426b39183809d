"""Runs the missing trainings of a study, each in its own work directory."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pnoise_jax import training
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training import data_version, run_config


def require_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError unless there are seeds, each given once."""
    if not seeds:
        raise ValueError("seeds is empty: give at least one, such as (0, 1, 2)")
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ValueError(
                f"seeds={tuple(seeds)}: {seed} appears twice, which would count one training as "
                "two: give each seed once"
            )


def require_no_run(path: Path) -> None:
    """Raises ValueError if the directory of a study contains a run of its own."""
    if RunDirectory(path).has_run():
        raise ValueError(
            f"--workdir={str(path)!r} contains a run of pnoise train; give the study its own "
            "directory"
        )


def train_missing(
    experiment: training.Experiment, path: Path, *, title: str, console: Console
) -> None:
    """Trains or resumes a run unless it is finished.

    Args:
      experiment: the experiment to train.
      path: the run's work directory.
      title: a heading to print before training.
      console: the console to print on.

    Raises:
      ValueError: the directory contains a run with another config or other data; the message names
        the differences.
    """
    run = RunDirectory(path)
    done = max(run.steps(), default=0) >= experiment.total_steps
    if done and run.evaluation.exists():
        described = data_version.describe(experiment)
        run_config.check(path, experiment.config, described=described)
        return
    console.rule(title)
    training.train(experiment.config, path)
