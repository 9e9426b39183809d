"""Where the metrics of a run go: metrics.jsonl always, and the writers that its config names."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from pnoise_jax.registry import Registry
from pnoise_jax.runs.layout import RunDirectory
from pnoise_jax.runs.writers.base import Writer
from pnoise_jax.runs.writers.jsonl import JsonlWriter


def _require_writer(kind: Any) -> None:
    """Raises ValueError unless this is a class of writers, naming what it lacks."""
    name = getattr(kind, "__name__", repr(kind))
    if not isinstance(kind, type):
        raise ValueError(f"{name} is not a class: make it a subclass of runs.Writer")
    missing = [method for method in ("write", "finish", "close") if not hasattr(kind, method)]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}: runs.Writer says what a writer does")


WRITERS: Registry[type[Writer]] = Registry("writer", _require_writer)
for _name, _place in (  # each imports its library when it is asked for
    ("tensorboard", "tensorboard:TensorBoardWriter"),
    ("wandb", "wandb:WandbWriter"),
    ("mlflow", "mlflow:MlflowWriter"),
):
    WRITERS.register_lazily(_name, f"{__name__}.{_place}")


def find_writer(name: str) -> type[Writer]:
    """The class of a writer.

    Raises:
      ValueError: there is no writer of this name, or its library is not installed.
    """
    try:
        return WRITERS[name]
    except ValueError as error:
        if name in WRITERS and isinstance(error.__cause__, ImportError):
            raise ValueError(
                f"writers: {name!r} needs a library that is not installed ({error.__cause__}): "
                f'pip install "pnoise_jax[{name}]", or take {name!r} out of writers'
            ) from error
        raise ValueError(f"writers: {error}") from error


class Writers:
    """Several writers as one."""

    def __init__(self, writers: Sequence[Writer]):
        self._writers = writers

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the metrics after a step."""
        for writer in self._writers:
            writer.write(step, metrics)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Takes the numbers of the report at the end of the run."""
        for writer in self._writers:
            writer.finish(metrics)

    def close(self) -> None:
        """Closes all of them, even where one fails."""
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)


def open_writers(
    run: RunDirectory,
    names: Sequence[str],
    *,
    config: Mapping[str, Any],
    step: int,
    evaluates: bool = False,
) -> Writers:
    """Opens metrics.jsonl and the writers of these names.

    Args:
      run: the directory of the run.
      names: the writers in addition to metrics.jsonl.
      config: all fields of the run by their dotted names.
      step: the last finished one; anything written after it is dropped.
      evaluates: whether the evaluation of this step is repeated.
    """
    kinds = [find_writer(name) for name in names]
    with contextlib.ExitStack() as opened:  # where one cannot be opened, the others are closed
        writers: list[Writer] = [JsonlWriter(run, config, step, evaluates=evaluates)]
        opened.callback(writers[0].close)
        for kind in kinds:
            writers.append(kind(run, config, step))
            opened.callback(writers[-1].close)
        opened.pop_all()
    return Writers(writers)


__all__ = ["Writer", "Writers", "find_writer", "open_writers"]
