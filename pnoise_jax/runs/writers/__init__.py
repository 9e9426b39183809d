"""Writers of a run's metrics: always metrics.jsonl, and those that its config names."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from pnoise_jax.registry import Registry
from pnoise_jax.runs.layout import RunDirectory
from pnoise_jax.runs.writers.base import Writer
from pnoise_jax.runs.writers.jsonl import JsonlWriter


def _require_writer(kind: Any) -> None:
    """Raises ValueError, naming what is missing, unless `kind` is a class of writers."""
    name = getattr(kind, "__name__", repr(kind))
    if not isinstance(kind, type):
        raise ValueError(f"{name} is not a class: make it a subclass of runs.Writer")
    missing = [method for method in ("write", "finish", "close") if not hasattr(kind, method)]
    if missing:
        raise ValueError(
            f"{name} has no {', '.join(missing)}: define them; see runs.Writer for what a writer "
            "needs"
        )


WRITERS: Registry[type[Writer]] = Registry("writer", _require_writer)
for _name, _place in (  # lazily, since each imports a library
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
                f'pip install "pnoise_jax[{name}]", or remove {name!r} from writers'
            ) from error
        raise ValueError(f"writers: {error}") from error


class Writers:
    """Several writers, used as one."""

    def __init__(self, writers: Sequence[Writer]):
        self._writers = writers

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Passes the metrics after a step to every writer."""
        for writer in self._writers:
            writer.write(step, metrics)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Passes the numbers of the final report to every writer."""
        for writer in self._writers:
            writer.finish(metrics)

    def close(self) -> None:
        """Closes all writers, even if one fails."""
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
      run: the work directory.
      names: the writers in addition to metrics.jsonl.
      config: all fields of the run by their dotted names.
      step: the last finished step; anything written for later steps is dropped.
      evaluates: whether the evaluation of this step is repeated.
    """
    kinds = [find_writer(name) for name in names]
    with contextlib.ExitStack() as opened:  # if one cannot be opened, the others are closed
        writers: list[Writer] = [JsonlWriter(run, config, step, evaluates=evaluates)]
        opened.callback(writers[0].close)
        for kind in kinds:
            writers.append(kind(run, config, step))
            opened.callback(writers[-1].close)
        opened.pop_all()
    return Writers(writers)


__all__ = ["Writer", "Writers", "find_writer", "open_writers"]
