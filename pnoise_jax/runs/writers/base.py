"""What a writer of metrics does."""

from collections.abc import Mapping
from typing import Any, Protocol

from pnoise_jax.runs.layout import RunDirectory

_SPEED = ("steps_per_second", "examples_per_second", "data_wait", "device_memory")


class Writer(Protocol):
    """Takes the metrics of a run, on the first host alone.

    One of your own is a class with these methods, which a config names as "module:Class". It keeps
    what it needs to find its place again in the directory of the run.
    """

    def __init__(self, run: RunDirectory, config: Mapping[str, Any], step: int) -> None:
        """Opens.

        Args:
          run: the directory of the run.
          config: all fields of the run by their dotted names.
          step: the last one that is done, 0 at the start; metrics after it are written again.
        """

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the means of the metrics since the last call, or an evaluation on the way."""

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Takes the numbers of the report: "clean/top1", "noisy, shuffled/top1" and so on."""

    def close(self) -> None:
        """Flushes; also after an error, and without `finish`."""


def grouped(name: str) -> str:
    """The name of a metric with its group in front, as dashboards sort them."""
    if "/" in name:
        return name
    return f"speed/{name}" if name in _SPEED else f"train/{name}"
