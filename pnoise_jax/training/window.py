"""The metrics of the steps since the last report."""

import dataclasses
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
      reason: what happened where, without the remedy that the message ends with.
    """

    def __init__(self, reason: str, remedy: str = _REMEDY):
        super().__init__(f"{reason}. {remedy}")
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Summary:
    """A window, closed.

    Attributes:
      metrics: means over its steps: () each, or (runs,) of several runs together.
      speed: steps_per_second and examples_per_second of one run; data_wait, the share of the time
        in percent in which the devices had nothing to do because no batch was ready; and on
        accelerators device_memory, the peak of a device in bytes.
      broken: of each run the first step whose loss or gradient is not finite and that value, or
        None; of a single run a list of one.
    """

    metrics: dict[str, np.ndarray]
    speed: dict[str, float]
    broken: list[tuple[int, float] | None]


class Window:
    """Collects metrics, which stay on the devices until it is closed, and times the steps."""

    def __init__(self, batch_size: int, schedule: optax.Schedule):
        self._batch_size, self._schedule = batch_size, schedule
        self._metrics: list[Any] = []  # `Metrics`, or numbers that were read back
        self._timed = 0  # steps since the clock started
        self._waited = 0.0  # of the seconds since then
        self._started = time.perf_counter()
        # A thread notes when a step ends: the loop itself does not wait for it.
        self._clock = ThreadPoolExecutor(1)
        self._ended: Future[float] | None = None  # when the last step did

    def add(self, metrics: Metrics) -> None:
        """Takes the metrics of a step: scalars, or (runs,) of several runs together."""
        self._metrics.append(metrics)
        self._timed += 1
        self._ended = self._clock.submit(_when_ready, metrics["loss"])

    def watch(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Passes batches on, and notes how long the devices waited for them."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            arrived = time.perf_counter()
            if self._ended is not None and self._ended.done():  # else they are still at work
                self._waited += max(0.0, arrived - max(started, self._ended.result()))
            yield batch

    def pending(self) -> list[dict[str, float]]:
        """The metrics of each step since the last report, for `resume`; waits for the devices."""
        self._metrics = jax.device_get(self._metrics)
        return [{name: float(value) for name, value in m.items()} for m in self._metrics]

    def resume(self, pending: Iterable[Mapping[str, float]]) -> None:
        """Begins with steps that were made before the run was stopped."""
        self._metrics = [{k: np.float32(v) for k, v in metrics.items()} for metrics in pending]

    def first_broken(self, step: int) -> tuple[int, float] | None:
        """As `Summary.broken`, of one run, whose window ends with ``step`` so far."""
        health = [metrics["loss"] + metrics["grad_norm"] for metrics in self._metrics]
        return _first_broken(np.array(health), step - len(health) + 1)

    def restart_clock(self) -> None:
        """Leaves what happened since the last report out of the speed."""
        self._timed, self._waited, self._started = 0, 0.0, time.perf_counter()

    def close(self, step: int) -> Summary:
        """Sums up the window, which ends with ``step``, and begins the next."""
        fetched = jax.device_get(self._metrics)
        seconds = time.perf_counter() - self._started
        metrics = {name: np.stack([m[name] for m in fetched]) for name in fetched[0]}
        # A finite loss with a gradient that is not would still save ruined parameters.
        health = (metrics["loss"] + metrics["grad_norm"]).reshape(len(fetched), -1)
        summary = Summary(
            {name: values.mean(axis=0) for name, values in metrics.items()}
            | {"learning_rate": np.full(metrics["loss"].shape[1:], self._schedule(step - 1))},
            {
                "steps_per_second": self._timed / seconds,
                "examples_per_second": self._timed * self._batch_size / seconds,
                "data_wait": 100 * self._waited / seconds,
                **_device_memory(),
            },
            [_first_broken(values, step - len(fetched) + 1) for values in health.T],
        )
        self._metrics = []
        self.restart_clock()
        return summary


def _device_memory() -> dict[str, float]:
    """The most memory that the first local device has had in use; empty where it does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}  # None on a CPU
    peak = stats.get("peak_bytes_in_use")
    return {} if peak is None else {"device_memory": float(peak)}


def _when_ready(x: jax.Array) -> float:
    x.block_until_ready()
    return time.perf_counter()


def describe_broken(broken: tuple[int, float]) -> str:
    """An element of `Summary.broken`, in words."""
    step, value = broken
    return f"the loss or gradient of step {step} is {value}"


def _first_broken(values: np.ndarray, first_step: int) -> tuple[int, float] | None:
    broken = np.flatnonzero(~np.isfinite(values))
    return (first_step + int(broken[0]), float(values[broken[0]])) if len(broken) else None
