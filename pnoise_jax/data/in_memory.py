"""User-defined data sets: arrays in memory, registered under a name for configs."""

import dataclasses
import functools
import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pnoise_jax.data import official
from pnoise_jax.data.builtin import embedded
from pnoise_jax.data.splits import parse_split
from pnoise_jax.registry import Registry

Arrays = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """Images and labels by split; the function of a registered data set returns one of these.

    Attributes:
      splits: maps the name of a split, such as "train" or "test", to (images, labels): uint8
        (n, height, width, channels) and integers (n,).
      class_names: the names of classes 0, 1, …; None if the classes have no names.

    Raises:
      ValueError: an array has the wrong dtype or shape, a label is out of range, the images of two
        splits differ in shape, or two classes have the same name.
    """

    splits: Mapping[str, Arrays]
    class_names: Sequence[str] | None = None

    def __post_init__(self):
        if not isinstance(self.splits, Mapping) or not self.splits:
            raise ValueError(f"splits={self.splits!r}: pass a dict such as {{'train': (x, y)}}")
        if self.class_names is not None:
            _require_names(self.class_names)
        shapes = set()
        for name, arrays in self.splits.items():
            if not isinstance(name, str):
                raise ValueError(f"split {name!r}: the name of a split must be a string")
            images, labels = _checked(name, arrays)
            shapes.add(images.shape[1:])
            if labels.max() >= self.num_classes:
                raise ValueError(
                    f"split {name!r} has label {labels.max()}, but there are only "
                    f"{self.num_classes} class names"
                )
        if len(shapes) > 1:
            raise ValueError(f"the splits have images of different shapes: {sorted(shapes)}")

    @property
    def num_classes(self) -> int:
        """The number of class names; without names, the largest label plus one."""
        if self.class_names is not None:
            return len(self.class_names)
        return 1 + max(int(np.max(labels)) for _, labels in self.splits.values())

    def read(self, split: str, *, where: str) -> Arrays:
        """Images and int32 labels of a split, of a part of one, or of several joined splits.

        Raises:
          ValueError: there is no such split, or it is empty.
        """
        parts = self.parts(split, where=where)
        pieces = [[np.asarray(x)[part] for x in self.splits[name]] for name, part in parts]
        if len(pieces) == 1:
            images, labels = pieces[0]  # not copied
        else:
            images, labels = (np.concatenate(column) for column in zip(*pieces, strict=True))
        return images, labels.astype(np.int32)

    def parts(self, split: str, *, where: str) -> list[tuple[str, slice]]:
        """The whole splits and slices that `split` joins; see `parse_split`, also for errors."""
        lengths = {name: [len(labels)] for name, (_, labels) in self.splits.items()}
        return parse_split(split, lengths, where=where)

    @functools.cached_property
    def version(self) -> str:
        """A digest of all images, labels and names."""
        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=8)
        for name, arrays in sorted(self.splits.items()):
            digest.update(name.encode())
            for array in map(np.ascontiguousarray, arrays):
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(array.data)
        return f"content-{digest.hexdigest()}"


def _require_names(names: Sequence[str]) -> None:
    """Raises ValueError unless all are strings and, up to Unicode normalisation, unique."""
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names={names!r}: give strings, such as ('0', '1')")
    if len({unicodedata.normalize("NFC", name) for name in names}) != len(names):
        raise ValueError(f"class_names={names!r}: give every class a unique name")


def _checked(name: str, arrays: Arrays) -> Arrays:
    fix = (
        "pass (images, labels) with at least one image: uint8 (n, height, width, channels), and "
        "integers (n,)"
    )
    if not isinstance(arrays, tuple | list) or len(arrays) != 2:
        raise ValueError(f"split {name!r} is a {type(arrays).__name__}: {fix}")
    images, labels = map(np.asarray, arrays)
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
        raise ValueError(f"the images of split {name!r} are {images.dtype} {images.shape}: {fix}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"the labels of split {name!r} are {labels.dtype} {labels.shape} for {len(images)} "
            f"images: {fix}"
        )
    if labels.min() < 0:
        raise ValueError(f"split {name!r} has label {labels.min()}: labels start at 0")
    return images, labels


def _require_function(function: Callable[[], InMemory]) -> None:
    if not callable(function):
        raise ValueError(
            f"{function!r} is not a data set: register a function without arguments that returns "
            "data.InMemory"
        )


DATASETS: Registry[Callable[[], InMemory]] = Registry(
    "data set", _require_function, reserved=(*embedded.BUILDERS, *official.NAMES)
)

# What `make` has made, by name, the newest last. No lru_cache: a callable may not be hashable.
_MADE: dict[str, tuple[Callable[[], InMemory], InMemory]] = {}
_MOST_MADE = 4


def register_dataset(name: str) -> Callable[[Callable[[], InMemory]], Callable[[], InMemory]]:
    """Decorator that registers your own data set, so a config can set ``data.name = "mine"``.

    Without registration, a config can set ``data.name = "module:function"``.

    Args:
      name: the new name.

    Raises:
      ValueError: the name is taken or not valid.
    """
    return functools.partial(DATASETS.register, name)


def make(name: str) -> InMemory:
    """Calls the function of a registered data set and caches its result.

    A function that was defined again, as in a notebook cell, is called again.

    Raises:
      ValueError: there is no such data set, its function cannot be imported or raises an exception,
        or it does not return `InMemory`.
    """
    function = DATASETS[name]
    called, result = _MADE.get(name, (None, None))
    if result is None or called is not function:
        result = _call(name, function)
        _MADE.pop(name, None)
        _MADE[name] = function, result
        while len(_MADE) > _MOST_MADE:
            del _MADE[next(iter(_MADE))]
    return result


def _call(name: str, function: Callable[[], InMemory]) -> InMemory:
    try:
        result = function()
    except Exception as error:  # user code may raise anything
        raise ValueError(f"data.name={name!r} failed ({type(error).__name__}: {error})") from error
    if not isinstance(result, InMemory):
        raise ValueError(
            f"data.name={name!r} returned a {type(result).__name__}: make it return data.InMemory"
        )
    return result
