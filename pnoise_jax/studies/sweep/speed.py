"""How fast runs train one after another and together: measured, not guessed."""

import dataclasses
import statistics
import time
from collections.abc import Sequence

import jax

from pnoise_jax import parallel, training
from pnoise_jax.training import open_together, start_together

MAX_TOGETHER = 8  # runs in one program; bounds its memory
_STEPS = 6  # timed


@dataclasses.dataclass(frozen=True)
class Speed:
    """What a program was measured to take.

    Attributes:
      compiling: seconds of the first step, minus a later one.
      step: seconds of one step of all its runs, the median of a few.
      runs: how many it moves on at once.
    """

    compiling: float
    step: float
    runs: int

    def seconds(self, *, programs: int, runs: int, steps: int) -> float:
        """The time to compile `programs` programs and train `runs` runs of `steps` steps."""
        return programs * self.compiling + runs * steps * self.step / self.runs


def chunk_size(runs: int) -> int:
    """How many of ``runs`` runs to train at once: few chunks, and little padding in the last."""
    return -(-runs // -(-runs // MAX_TOGETHER))


def measure(
    experiments: Sequence[training.Experiment], program: training.Program, *, together: bool
) -> Speed:
    """Makes a few steps of the first run, or of all together, from their start."""
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
