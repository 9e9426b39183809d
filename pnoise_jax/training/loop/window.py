"""Collects the metrics of the steps since the last report."""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import optax

from pnoise_jax.training.task import Metrics

_Batch = Mapping[str, np.ndarray]
_REMEDY = (
    "Lower optimizer.learning_rate or noise.strength, set optimizer.clip_norm, or lengthen "
    "optimizer.warmup"
)


class NonFiniteLossError(ArithmeticError):
    """The loss or the gradient of a step is NaN or infinite.

    Attributes:
      reason: what happened and where; the message without the remedy at its end.
    """

    def __init__(self, reason: str, remedy: str = _REMEDY):
        super().__init__(f"{reason}. {remedy}")
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Broken:
    """A step of a run whose loss or gradient is not finite.

    Attributes:
      step: the step, from 1.
      loss, grad_norm: its loss and the norm of its gradient.
    """

    step: int
    loss: float
    grad_norm: float

    def __str__(self) -> str:
        """Which of the two is not finite, such as "the loss of step 3 is nan"."""
        values = {"loss": self.loss, "gradient norm": self.grad_norm}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        (name, value), *others = bad.items()
        more = "".join(f", and its {name} is {value}" for name, value in others)
        return f"the {name} of step {self.step} is {value}{more}"


@dataclasses.dataclass(frozen=True)
class Summary:
    """The summary of a closed window.

    Attributes:
      metrics: means over the window's steps: () each, or (runs,) for several runs together.
      speed: steps_per_second and examples_per_second of one run; data_wait, the percentage of the
        time in which the devices were idle because no batch was ready; and on accelerators
        device_memory, the peak memory of a device in bytes.
      broken: for each run, the first step whose loss or gradient is not finite, or None; for a
        single run, a list with one entry.
    """

    metrics: dict[str, np.ndarray]
    speed: dict[str, float]
    broken: list[Broken | None]


class Window:
    """Collects metrics, which stay on the devices until the window closes, and times the steps."""

    def __init__(self, batch_size: int, schedule: optax.Schedule):
        self._batch_size, self._schedule = batch_size, schedule
        self._metrics: list[Any] = []  # `Metrics`, or numbers copied to the host
        self._timed = 0  # steps since the clock started
        self._waited = 0.0  # seconds since then in which the devices waited for a batch
        self._started = time.perf_counter()
        # A thread notes when a step ends, since the loop does not wait for it.
        self._clock = ThreadPoolExecutor(1)
        self._ended: Future[float] | None = None  # when the last step ended

    def add(self, metrics: Metrics) -> None:
        """Adds the metrics of a step: scalars, or (runs,) for several runs together."""
        self._metrics.append(metrics)
        self._timed += 1
        self._ended = self._clock.submit(_when_ready, metrics["loss"])

    def watch(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Yields the batches, and measures how long the devices wait for them."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            arrived = time.perf_counter()
            if self._ended is not None and self._ended.done():  # otherwise the devices are busy
                self._waited += max(0.0, arrived - max(started, self._ended.result()))
            yield batch

    def pending(self) -> list[dict[str, float]]:
        """The metrics of each step since the last report, for `resume`; waits for the devices."""
        self._metrics = jax.device_get(self._metrics)
        return [{name: float(value) for name, value in m.items()} for m in self._metrics]

    def resume(self, pending: Iterable[Mapping[str, float]]) -> None:
        """Starts with the metrics of steps from before the run was stopped."""
        self._metrics = [{k: np.float32(v) for k, v in metrics.items()} for metrics in pending]

    def first_broken(self, step: int) -> Broken | None:
        """The entry of `Summary.broken` for a single run whose window now ends at ``step``."""
        loss, grad_norm = (
            np.array([metrics[name] for metrics in self._metrics]) for name in ("loss", "grad_norm")
        )
        return _first_broken(loss, grad_norm, step)

    def restart_clock(self) -> None:
        """Restarts the timing, to leave the time since the last report out of the speed."""
        self._timed, self._waited, self._started = 0, 0.0, time.perf_counter()

    def close(self, step: int) -> Summary:
        """Summarises the window, which ends with ``step``, and begins the next."""
        fetched = jax.device_get(self._metrics)
        seconds = time.perf_counter() - self._started
        metrics = {name: np.stack([m[name] for m in fetched]) for name in fetched[0]}
        losses, norms = (
            metrics[name].reshape(len(fetched), -1).T for name in ("loss", "grad_norm")
        )
        summary = Summary(
            {name: values.mean(axis=0) for name, values in metrics.items()}
            | {"learning_rate": np.full(metrics["loss"].shape[1:], self._schedule(step - 1))},
            {
                "steps_per_second": self._timed / seconds,
                "examples_per_second": self._timed * self._batch_size / seconds,
                "data_wait": 100 * self._waited / seconds,
                **_device_memory(),
            },
            [_first_broken(*pair, last_step=step) for pair in zip(losses, norms, strict=True)],
        )
        self._metrics = []
        self.restart_clock()
        return summary


def _device_memory() -> dict[str, float]:
    """The peak memory of the first local device; empty if it does not report that."""
    stats = jax.local_devices()[0].memory_stats() or {}  # None on a CPU
    peak = stats.get("peak_bytes_in_use")
    return {} if peak is None else {"device_memory": float(peak)}


def _when_ready(x: jax.Array) -> float:
    x.block_until_ready()
    return time.perf_counter()


def _first_broken(loss: np.ndarray, grad_norm: np.ndarray, last_step: int) -> Broken | None:
    """The first of the steps up to ``last_step`` that is broken.

    With a finite loss but a gradient that is not, the saved parameters would be ruined too.
    """
    broken = np.flatnonzero(~(np.isfinite(loss) & np.isfinite(grad_norm)))
    if not len(broken):
        return None
    first = int(broken[0])
    step = last_step - len(loss) + 1 + first
    return Broken(step, float(loss[first]), float(grad_norm[first]))
