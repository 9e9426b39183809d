"""The arrays of a model, and how each is made from the arrays of a file."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from pnoise_jax.weights.errors import printable_name
from pnoise_jax.weights.formats.array_file import FLOATS, ArrayFile, Read, Shape

MAX_DIGITS = 6  # of a number in a name: no model has a million blocks


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One array of our model, and how to make it from the arrays of a file.

    Attributes:
      names: the arrays in the file; several if ours joins them.
      shape: the shape of our array.
      convert: turns the file's arrays into ours.
    """

    names: tuple[str, ...]
    shape: Shape
    convert: Callable[..., np.ndarray]

    def then(self, shape: Shape, convert: Callable[[np.ndarray], np.ndarray]) -> "Entry":
        """This entry with a further conversion."""
        return Entry(self.names, shape, lambda *arrays: convert(self.convert(*arrays)))

    def read(self, read: Read) -> np.ndarray:
        """Reads the array as contiguous float32.

        Raises:
          ValueError: it is not floating-point, or some of its values are not finite.
        """
        arrays = [_require_floats(name, read(name)) for name in self.names]
        with np.errstate(all="ignore"):  # the result is checked below
            x = np.ascontiguousarray(self.convert(*arrays), np.float32)
        if not np.isfinite(x).all():  # checks only this part if several entries share an array
            raise ValueError(
                f"{' + '.join(self.names)} contains NaN or values that are infinite in float32: "
                "the training that produced it diverged, or the file is damaged; use an earlier "
                "checkpoint"
            )
        return x


Entries = dict[str, Entry]  # by our path, such as "params/block_1/attn/qkv/kernel"


def add_entry(entries: Entries, path: str, entry: Entry) -> None:
    """Adds an entry.

    Raises:
      ValueError: this path already has one.
    """
    if path in entries:
        first, second = (
            " + ".join(map(printable_name, each.names)) for each in (entries[path], entry)
        )
        raise ValueError(
            f"has two arrays for {printable_name(path)}: {first} and {second}; it mixes two "
            "models or two naming schemes"
        )
    entries[path] = entry


def read_entries(file: ArrayFile, entries: Mapping[str, Entry]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (our path, array) for one entry after the other.

    An array of the file that several entries share is read once and kept until the last entry has
    used it.

    Raises:
      ValueError: an array cannot be read.
    """
    uses_left = collections.Counter(name for entry in entries.values() for name in entry.names)
    kept: dict[str, np.ndarray] = {}
    with file.open() as read:

        def read_once(name: str) -> np.ndarray:
            x = kept.pop(name) if name in kept else read(name)
            if x.shape != file.shapes[name]:
                raise ValueError(
                    f"{name} has shape {x.shape} now and had {file.shapes[name]}: the file has "
                    "changed since it was opened; start again"
                )
            uses_left[name] -= 1
            if uses_left[name]:
                kept[name] = x
            return x

        for path, entry in sorted(entries.items(), key=lambda item: item[1].names):
            yield path, entry.read(read_once)


def _require_floats(name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.str[1:] == "V2" and x.dtype.names is None:  # how an npz stores bfloat16
        x = x.view(jnp.bfloat16)
    if x.dtype.name not in FLOATS:
        raise ValueError(f"{name} has dtype {x.dtype}; weights must be floating-point")
    return x
