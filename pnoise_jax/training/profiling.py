"""A profile of some steps of a run, as the config's field `profile` asks for it."""

from pathlib import Path

import jax


class Profiler:
    """Traces a window of steps; TensorBoard's profile plugin and Perfetto show the trace."""

    def __init__(self, window: str | None, directory: Path):
        """Traces nothing yet.

        Args:
          window: "START:STEPS": the steps that follow step START; None traces none.
          directory: where the trace goes.
        """
        self._directory, self._active = directory, False
        self._first = self._last = -1
        if window is not None:
            start, steps = map(int, window.split(":"))
            self._first, self._last = start, start + steps

    def after(self, step: int, loss: jax.Array | None = None) -> None:
        """To be called before the first step and after each; waits for the devices at the end.

        Args:
          step: the number of steps that were made.
          loss: of the last step, still on the devices.
        """
        if step == self._first:
            jax.profiler.start_trace(self._directory)
            self._active = True
        elif step == self._last and self._active:
            if loss is not None:
                loss.block_until_ready()
            self.close()

    def close(self) -> None:
        """Ends the trace where the run ends within the window."""
        if self._active:
            self._active = False
            jax.profiler.stop_trace()
