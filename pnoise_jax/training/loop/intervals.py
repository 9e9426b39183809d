"""When a run reports, saves and evaluates: at given steps, and for checkpoints by the clock."""

import dataclasses
import math
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from pnoise_jax.training.configuration.durations import seconds_of
from pnoise_jax.training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Every:
    """Intervals between reports, checkpoints and evaluations.

    Attributes:
      log, save, evaluate: steps; larger than the whole run if there is none before its end.
      seconds: the maximum time between two checkpoints.
    """

    log: int
    save: int
    evaluate: int
    seconds: float

    @classmethod
    def of(cls, experiment: Experiment) -> "Every":
        """The intervals in the config."""
        config = experiment.config
        never = experiment.total_steps + 1
        section = config.checkpoint
        by_clock = seconds_of(section.every, field="checkpoint.every")

        def steps(duration: str | None, field: str) -> int:
            return never if duration is None else experiment.steps(duration, field)

        return cls(
            log=steps(config.log_every, "log_every"),
            save=never if by_clock else steps(section.every, "checkpoint.every"),
            evaluate=steps(config.evaluation.every, "evaluation.every"),
            seconds=by_clock or seconds_of(section.at_most, field="checkpoint.at_most") or math.inf,
        )

    def reports(self, step: int, total: int) -> bool:
        """Whether to write and print metrics after ``step``."""
        return step % self.log == 0 or step == total or self.evaluates(step, total)

    def saves(self, step: int, total: int) -> bool:
        """Whether a checkpoint is due after ``step``, regardless of the clock."""
        return step % self.save == 0 or step == total

    def evaluates(self, step: int, total: int) -> bool:
        """Whether an evaluation follows ``step`` during training."""
        return step % self.evaluate == 0 and 0 < step < total


class SaveClock:
    """Decides when a checkpoint is due by the clock; all hosts use the first host's.

    A single host checks its clock after every step. Several would have to communicate each time, so
    they check less often: about 20 times between two checkpoints if the steps are short enough.
    """

    def __init__(self, seconds: float, step: int):
        """Starts at ``step``; a save is due if the next check would come over ``seconds`` later."""
        self._seconds = seconds
        self._stride = 1
        self.restart(step)

    def restart(self, step: int) -> None:
        """Notes that a checkpoint of this step has been written."""
        self._saved = self._looked = time.monotonic()
        self._last, self._next = step, step + 1

    def is_due(self, step: int) -> bool:
        """Whether to save now; must be called after every step, on all hosts."""
        if step < self._next:
            return False
        now = time.monotonic()
        pace = (now - self._looked) / (step - self._last)
        if jax.process_count() > 1:
            wanted = self._seconds / 20 / max(pace, 1e-6)
            self._stride = int(np.clip(wanted, 1, 2 * self._stride))  # the first steps are slow
        is_due = now - self._saved + pace * self._stride > self._seconds
        if jax.process_count() > 1:
            mine = np.array([is_due, self._stride], np.int32)
            is_due, self._stride = map(int, multihost_utils.broadcast_one_to_all(mine))
        self._looked, self._last, self._next = now, step, step + self._stride
        return bool(is_due)
