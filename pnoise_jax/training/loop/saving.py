"""Saves a run during training, also when a signal stops it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pnoise_jax import stopping
from pnoise_jax.parallel import on_all_hosts
from pnoise_jax.runs import Checkpoints, RunDirectory
from pnoise_jax.training.loop.intervals import SaveClock
from pnoise_jax.training.loop.window import Broken, NonFiniteLossError, Window
from pnoise_jax.training.step.step import TrainState


class Saver:
    """Saves the states of one run, with the metrics that are not in any report yet."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        window: Window,
        clock: SaveClock,
        *,
        require_there: Callable[[], None],
        total: int,
    ):
        """Creates a saver that writes to ``checkpoints``.

        Args:
          checkpoints: the run's checkpoints.
          window: the metrics since the last report.
          clock: the clock that every checkpoint restarts.
          require_there: raises OSError if the work directory is gone.
          total: the number of steps of the run.
        """
        self._checkpoints, self._window, self._clock = checkpoints, window, clock
        self._require_there, self._total = require_there, total

    def save(self, step: int, state: TrainState) -> None:
        """Starts to save the state after ``step``.

        Raises:
          OSError: this or the previous checkpoint cannot be written.
          NonFiniteLossError: the loss or gradient of a step since the last report is not finite.
        """
        on_all_hosts(self._require_there)
        pending = self._window.pending()
        self.require_finite(self._window.first_broken(step))
        self._checkpoints.save(step, state, pending)
        self._clock.restart(step)
        self._window.restart_clock()

    def require_finite(self, broken: Broken | None) -> None:
        """Raises NonFiniteLossError if a step of a window was not finite; see `Summary.broken`."""
        if broken is not None:
            self._checkpoints.wait()
            raise NonFiniteLossError(
                f"{broken}; the last whole checkpoint is "
                f"{self._checkpoints.describe_newest()}, in {self._checkpoints.directory}"
            )

    def stopped(self, step: int) -> stopping.StoppedError:
        """The error to raise after `save` of the state after ``step``; waits until it is saved."""
        self._checkpoints.wait()
        return stopping.StoppedError(
            f"after step {step} of {self._total}",
            f"the checkpoint of step {step} is saved in {self._checkpoints.directory}",
        )

    @contextlib.contextmanager
    def stopping_evaluation(self, step: int, state: TrainState) -> Iterator[None]:
        """If an evaluation during training is stopped, saves the state before raising."""
        try:
            yield
        except stopping.StoppedError:
            if self._checkpoints.newest() != step:
                self.save(step, state)
            raise self.stopped(step) from None


def check_before_training(checkpoints: Checkpoints, step: int, total: int) -> None:
    """Raises StoppedError if a signal arrived before the first step after ``step``."""
    if step == total:
        return
    if step == 0:
        stopping.check("before the first step", "nothing was trained or saved", "begin")
    kept = f"the checkpoint of step {step} in {checkpoints.directory} is unchanged"
    stopping.check("before another step was trained", kept)


@contextlib.contextmanager
def stopping_last_evaluation(path: Path, total: int) -> Iterator[None]:
    """If the evaluation after training is stopped, says that the training is complete."""
    try:
        yield
    except stopping.StoppedError:
        raise stopping.StoppedError(
            "in the evaluation after training",
            f"all {total} steps are done, and the last checkpoint is saved in "
            f"{RunDirectory(path).checkpoints}",
            "evaluate",
        ) from None


@contextlib.contextmanager
def naming_a_lost_directory(require_there: Callable[[], None]) -> Iterator[None]:
    """If the work directory was deleted during a save, says so instead of Orbax's error."""
    try:
        yield
    except OSError as error:
        try:
            require_there()
        except OSError as lost:
            raise lost from error
        raise
