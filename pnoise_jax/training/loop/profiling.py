"""Profiles some steps of a run, set by the config's field `profile`."""

from pathlib import Path

import jax


class Profiler:
    """Traces a window of steps, for TensorBoard's profile plugin or Perfetto."""

    def __init__(self, window: str | None, directory: Path):
        """Creates a profiler; the trace is started by `after`.

        Args:
          window: "START:STEPS": the STEPS steps after step START; None traces nothing.
          directory: the directory for the trace.
        """
        self._directory, self._active = directory, False
        self._first = self._last = -1
        if window is not None:
            start, steps = map(int, window.split(":"))
            self._first, self._last = start, start + steps

    def after(self, step: int, loss: jax.Array | None = None) -> None:
        """Starts or ends the trace if it is time; waits for the devices before it ends the trace.

        Must be called before the first step and after each step.

        Args:
          step: the number of steps made so far.
          loss: the loss of the last step, still on the devices.
        """
        if step == self._first:
            jax.profiler.start_trace(self._directory)
            self._active = True
        elif step == self._last and self._active:
            if loss is not None:
                loss.block_until_ready()
            self.close()

    def close(self) -> None:
        """Ends the trace, if it is active; called when the run ends."""
        if self._active:
            self._active = False
            jax.profiler.stop_trace()
