"""Whether a run fits its devices, and what would have to change."""

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
    """What came of compiling a run.

    Attributes:
      fits: whether every program fits as the config has it.
      changes: of the config, with which the training step fits; {} where it does as it is, or where
        nothing that was tried helps.
      programs: what those need that fit.
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
      suggests: whether to look for changes with which the training step fits.
      report: takes sentences on what does not fit, and what does.
    """
    try:
        programs, changes = [compile_training(experiment, topology)], {}
    except TooLargeError as error:
        report(f"Too large: {error}.")
        found = suggest(experiment.config, topology, report) if suggests else None
        if found is None:
            if suggests:
                report("Nothing that was tried fits: take more devices, or a smaller model.")
            return Outcome(False, {}, ())
        changes, needs, experiment = found
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
    """Changes of a config as flags of a command line."""
    return " ".join(f"--config.{field}={value}" for field, value in changes.items())


def _warn_of(changes: dict[str, Any], experiment: Experiment) -> str:
    mixes = any(each.train and each.noise.mixes_batch for each in experiment.injections)
    if "accumulate" not in changes or not mixes:
        return ""
    size = experiment.config.batch_size // experiment.config.accumulate
    return f" But then noise over the batch mixes {size} examples: it is another experiment."
