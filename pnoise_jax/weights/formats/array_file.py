"""The arrays of a file before any is read: names, shapes, and how to read one."""

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax.weights.errors import naming_damage
from pnoise_jax.weights.formats.model_info import ModelInfo

Shape = tuple[int, ...]
Read = Callable[[str], np.ndarray]
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})  # accepted, read as float32


class Format(enum.StrEnum):
    """How arrays are stored."""

    NPZ = "npz"
    SAFETENSORS = "safetensors"
    RUN = "run"


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayFile:
    """The arrays of a file or a checkpoint, by their stored names.

    Attributes:
      path: the file or directory.
      format: how the arrays are stored.
      title: a description for the reader, such as "safetensors" or "EMA weights of step 12".
      shapes: the stored shape of every array.
      open: opens the file for reading: returns a context manager that yields `read(name)`.
      dtypes: the stored dtype of every array, by its numpy name.
      options: the model's options, as far as they are known.
      model_info: what a safetensors file's metadata and config.json say; this may be about another
        file.
      class_names: the classes of the head, by label; None if they are unknown.
    """

    path: Path
    format: Format
    title: str
    shapes: Mapping[str, Shape]
    open: Callable[[], contextlib.AbstractContextManager[Read]]
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model_info: tuple[ModelInfo, ...] = ()
    class_names: tuple[str, ...] | None = None


def opener(
    kind: str, start: Callable[[contextlib.ExitStack], Read]
) -> Callable[[], contextlib.AbstractContextManager[Read]]:
    """Returns an `ArrayFile.open` that reports damage as ValueError.

    Args:
      kind: the kind of file, for messages.
      start: opens the file; the stack closes it.
    """

    @contextlib.contextmanager
    def open_arrays() -> Iterator[Read]:
        with contextlib.ExitStack() as stack:
            with naming_damage(f"can no longer be opened as {kind}"):
                read_raw = start(stack)

            def read(name: str) -> np.ndarray:
                with naming_damage(f"{name} cannot be read from this {kind}"):
                    return read_raw(name)

            yield read

    return open_arrays
