"""The interface of a writer of metrics."""

from collections.abc import Mapping
from typing import Any, Protocol

from pnoise_jax.runs.layout import RunDirectory

_SPEED = ("steps_per_second", "examples_per_second", "data_wait", "device_memory")


class Writer(Protocol):
    """Writes the metrics of a run; only the first host has writers.

    To add one, define a class with these methods and name it in a config as "module:Class". It
    should keep whatever it needs to continue after a restart in the run's work directory.
    """

    def __init__(self, run: RunDirectory, config: Mapping[str, Any], step: int) -> None:
        """Opens the writer.

        Args:
          run: the work directory.
          config: all fields of the run by their dotted names.
          step: the last finished step, 0 at the start; metrics after it will be written again.
        """

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes means of the metrics since the last report, or an evaluation during training."""

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Writes the numbers of the report: "clean/top1", "noisy, shuffled/top1" and so on."""

    def close(self) -> None:
        """Flushes and closes; also called after an error, without `finish`."""


def grouped(name: str) -> str:
    """The name of a metric, prefixed with its group in a dashboard."""
    if "/" in name:
        return name
    return f"speed/{name}" if name in _SPEED else f"train/{name}"
