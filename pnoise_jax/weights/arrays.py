"""What a file of weights holds, before anything of it is read: names, shapes, and how to read."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from pnoise_jax.weights.descriptions import Statement
from pnoise_jax.weights.errors import shown

Shape = tuple[int, ...]
Read = Callable[[str], np.ndarray]
MOST_DIGITS = 6  # of a number in a name: no model has a million blocks
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})  # what is read, as float32


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayFile:
    """The arrays of a file or a checkpoint, by the names that they have there.

    Attributes:
      path: the file or directory.
      kind: "npz", "safetensors" or "run".
      title: what it is, for the reader, such as "safetensors" or "EMA weights of step 12".
      shapes: of every array, as it lies there.
      open: opens the file for reading: a context that gives `read(name)`.
      dtypes: of every array, as numpy names them.
      options: the model's, of a run.
      statements: all that is said of a safetensors file, which may be of another.
      class_names: of the head, by label; None where they are not known.
    """

    path: Path
    kind: str
    title: str
    shapes: Mapping[str, Shape]
    open: Callable[[], contextlib.AbstractContextManager[Read]]
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    statements: tuple[Statement, ...] = ()
    class_names: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One array of ours, and what of a file it is made from.

    Attributes:
      names: of the arrays in the file; several where ours joins them.
      shape: of ours.
      convert: makes ours of them.
    """

    names: tuple[str, ...]
    shape: Shape
    convert: Callable[..., np.ndarray]

    def then(self, shape: Shape, convert: Callable[[np.ndarray], np.ndarray]) -> "Entry":
        """This entry, converted further."""
        return Entry(self.names, shape, lambda *arrays: convert(self.convert(*arrays)))

    def read(self, read: Read) -> np.ndarray:
        """The array, float32, contiguous.

        Raises:
          ValueError: it does not consist of floating-point numbers, all of them finite.
        """
        arrays = [_floats(name, read(name)) for name in self.names]
        with np.errstate(all="ignore"):  # what comes of it is looked at
            x = np.ascontiguousarray(self.convert(*arrays), np.float32)
        if not np.isfinite(x).all():  # of this part alone, where several share a large array
            raise ValueError(
                f"{' + '.join(self.names)} holds NaN, or numbers that are infinite in float32: the "
                "training that made it has failed, or the file is damaged; take an earlier "
                "checkpoint"
            )
        return x


Entries = dict[str, Entry]  # by our path, such as "params/block_1/attn/qkv/kernel"


def put(entries: Entries, path: str, entry: Entry) -> None:
    """Adds an entry.

    Raises:
      ValueError: there is one for this path.
    """
    if path in entries:
        first, second = (" + ".join(map(shown, e.names)) for e in (entries[path], entry))
        both = f"{first} and {second}"
        raise ValueError(
            f"has two arrays for {shown(path)}: {both}; it mixes two models, or two namings"
        )
    entries[path] = entry


def read_all(file: ArrayFile, entries: Mapping[str, Entry]) -> Iterator[tuple[str, np.ndarray]]:
    """Reads one entry after the other: (our path, array).

    An array of the file from which several entries take a part is read once, and held until the
    last of them has it.

    Raises:
      ValueError: an array cannot be read.
    """
    left = collections.Counter(name for entry in entries.values() for name in entry.names)
    held: dict[str, np.ndarray] = {}
    with file.open() as read:

        def take(name: str) -> np.ndarray:
            x = held.pop(name) if name in held else read(name)
            if x.shape != file.shapes[name]:
                raise ValueError(
                    f"{name} is {x.shape} now and was {file.shapes[name]}: the file has changed "
                    "since it was opened; begin again"
                )
            left[name] -= 1
            if left[name]:
                held[name] = x
            return x

        for path, entry in sorted(entries.items(), key=lambda item: item[1].names):
            yield path, entry.read(take)


def _floats(name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.str[1:] == "V2" and x.dtype.names is None:  # how an npz holds bfloat16
        x = x.view(jnp.bfloat16)
    if x.dtype.name not in FLOATS:
        raise ValueError(f"{name} has dtype {x.dtype}; weights are floating-point numbers")
    return x
