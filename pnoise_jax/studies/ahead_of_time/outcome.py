"""Checks whether a run fits its devices, and what would have to change."""

import dataclasses
from collections.abc import Callable
from typing import Any

from pnoise_jax.studies.ahead_of_time.compiling import (
    Needs,
    TooLargeError,
    compile_evaluation,
    compile_training,
)
from pnoise_jax.studies.ahead_of_time.suggesting import suggest
from pnoise_jax.studies.ahead_of_time.topologies import Topology
from pnoise_jax.training import Experiment


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of compiling a run.

    Attributes:
      fits: whether every program fits with the unchanged config.
      changes: config changes that make the training step fit; {} if none are needed, or if none of
        those tried helps.
      programs: the needs of each program that fits.
    """

    fits: bool
    changes: dict[str, Any]
    programs: tuple[Needs, ...]


def compile_run(
    experiment: Experiment,
    topology: Topology,
    *,
    evaluation: bool,
    suggests: bool,
    report: Callable[[str], None],
) -> Outcome:
    """Compiles the training and the evaluation step of a run.

    Args:
      experiment: made by `build`.
      topology: the devices.
      evaluation: whether to compile the evaluation step as well.
      suggests: whether to look for changes that make the training step fit.
      report: called with sentences about what fits and what does not.
    """
    try:
        programs, changes = [compile_training(experiment, topology)], {}
    except TooLargeError as error:
        report(f"Too large: {error}.")
        suggestion = suggest(experiment.config, topology, report) if suggests else None
        if suggestion is None:
            if suggests:
                report("None of the changes tried fits: use more devices or a smaller model.")
            return Outcome(False, {}, ())
        changes, needs, experiment = suggestion
        programs = [needs]
        report(f"The training step fits with {as_flags(changes)}.{_warn_of(changes, experiment)}")
    fits = not changes
    if evaluation:
        try:
            programs.append(compile_evaluation(experiment, topology))
        except TooLargeError as error:
            fits = False
            report(f"Too large: {error}. Lower evaluation.batch_size, or raise fsdp.")
    return Outcome(fits, changes, tuple(programs))


def as_flags(changes: dict[str, Any]) -> str:
    """Formats config changes as command-line flags."""
    return " ".join(f"--config.{field}={value}" for field, value in changes.items())


def _warn_of(changes: dict[str, Any], experiment: Experiment) -> str:
    mixes = any(each.train and each.noise.mixes_batch for each in experiment.injections)
    if "accumulate" not in changes or not mixes:
        return ""
    size = experiment.config.batch_size // experiment.config.accumulate
    return f" But then noise over the batch mixes {size} examples: a different experiment."
