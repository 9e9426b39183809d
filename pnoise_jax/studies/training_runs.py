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
        raise ValueError("seeds is empty: give some, such as (0, 1, 2)")
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ValueError(
                f"seeds={tuple(seeds)}: {seed} appears twice, which would count one training as "
                "two: give each seed once"
            )


def train_missing(
    experiment: training.Experiment, path: Path, *, title: str, console: Console
) -> None:
    """Trains or resumes a run that is not finished.

    Args:
      experiment: the run.
      path: its work directory.
      title: to print above its training.
      console: where to print.

    Raises:
      ValueError: the directory holds a run with another config or other data; names them.
    """
    run = RunDirectory(path)
    done = max(run.steps(), default=0) >= experiment.total_steps
    if done and run.evaluation.exists():
        described = data_version.describe(experiment)
        run_config.check(path, experiment.config, described=described)
        return
    console.rule(title)
    training.train(experiment.config, path)
