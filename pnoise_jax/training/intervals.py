"""When a run reports, saves and evaluates: by the step; for checkpoints by the clock, too."""

import dataclasses
import math
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from pnoise_jax.training.durations import seconds_of
from pnoise_jax.training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Every:
    """Steps from one report, checkpoint, evaluation to the next.

    Attributes:
      log, save, evaluate: larger than the run where there is none but the last.
      seconds: the longest time between two checkpoints.
    """

    log: int
    save: int
    evaluate: int
    seconds: float

    @classmethod
    def of(cls, experiment: Experiment) -> "Every":
        """What the config says."""
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

    def saves(self, step: int, total: int) -> bool:
        """Whether a checkpoint is due after ``step``, whatever the clock says."""
        return step % self.save == 0 or step == total

    def evaluates(self, step: int, total: int) -> bool:
        """Whether an evaluation on the way follows."""
        return step % self.evaluate == 0 and 0 < step < total


class SaveClock:
    """Says when a checkpoint is due by the clock; all hosts go by the first one's.

    One host looks at its clock after every step. Several would have to talk then, so they look less
    often: some 20 times between two checkpoints, as far as steps are that short.
    """

    def __init__(self, seconds: float, step: int):
        """Starts at ``step``; due when the next look would come more than ``seconds`` later."""
        self._seconds = seconds
        self._stride = 1
        self.restart(step)

    def restart(self, step: int) -> None:
        """A checkpoint of this step has been written."""
        self._saved = self._looked = time.monotonic()
        self._last, self._next = step, step + 1

    def is_due(self, step: int) -> bool:
        """Whether to save now; to be asked after every step, on all hosts."""
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
