"""Measures how fast runs train one after another and together in one program."""

import dataclasses
import statistics
import time
from collections.abc import Sequence

import jax

from pnoise_jax import parallel, training
from pnoise_jax.training import open_together, start_together

MAX_TOGETHER = 8  # runs in one program; limits its memory
_STEPS = 6  # number of timed steps


@dataclasses.dataclass(frozen=True)
class Speed:
    """The measured times of a program.

    Attributes:
      compiling: duration of the first step minus `step`, in seconds; at least 0.
      step: median duration of one step of all its runs, in seconds.
      runs: number of runs that one step advances.
    """

    compiling: float
    step: float
    runs: int

    def seconds(self, *, programs: int, runs: int, steps: int) -> float:
        """Returns the time to compile ``programs`` programs and train ``runs`` runs.

        Each run has ``steps`` steps.
        """
        return programs * self.compiling + runs * steps * self.step / self.runs


def chunk_size(runs: int) -> int:
    """Returns how many of ``runs`` runs to train at once: few chunks, with little padding."""
    return -(-runs // -(-runs // MAX_TOGETHER))


def measure(
    experiments: Sequence[training.Experiment], program: training.Program, *, together: bool
) -> Speed:
    """Times the first few steps of the first run, or of all runs together."""
    places = list(experiments) if together else experiments[:1]
    states, constants = start_together(places, program)
    with open_together(places) as batches:
        batch = next(batches)
    if not together:
        states, constants, batch = jax.tree.map(lambda x: x[0], (states, constants, batch))
    batch = parallel.to_devices(batch, program.batches)
    seconds = []
    for _ in range(1 + _STEPS):
        started = time.perf_counter()
        states, metrics = program.step(states, batch, *constants)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    step = statistics.median(seconds[1:])
    return Speed(max(0.0, seconds[0] - step), step, len(places))
