"""Data sets of anybody's own, as arrays in memory, under a name that a config can give."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pnoise_jax.data.splits import parse_split
from pnoise_jax.registry import Registry

Arrays = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """Images and labels by split, what the function of a registered data set returns.

    Attributes:
      splits: by name, such as "train" and "test": images, uint8 (n, height, width, channels), and
        labels, integers (n,).
      class_names: of labels 0, 1, …; None where classes have no names but their numbers.

    Raises:
      ValueError: arrays of another kind or shape, or labels out of range; names the split.
    """

    splits: Mapping[str, Arrays]
    class_names: Sequence[str] | None = None

    def __post_init__(self):
        if not isinstance(self.splits, Mapping) or not self.splits:
            raise ValueError(f"splits={self.splits!r}: give a dict such as {{'train': (x, y)}}")
        shapes = set()
        for name, arrays in self.splits.items():
            images, labels = _checked(name, arrays)
            shapes.add(images.shape[1:])
            if labels.max() >= self.num_classes:
                raise ValueError(
                    f"split {name!r} has label {labels.max()}, and there are {self.num_classes} "
                    "class names"
                )
        if len(shapes) > 1:
            raise ValueError(f"the splits have images of different shapes: {sorted(shapes)}")
        if self.class_names is not None and len(set(self.class_names)) != self.num_classes:
            raise ValueError(f"class_names={self.class_names!r}: give every class another name")

    @property
    def num_classes(self) -> int:
        """As many as there are names; without names, one more than the largest label."""
        if self.class_names is not None:
            return len(self.class_names)
        return 1 + max(int(np.max(labels)) for _, labels in self.splits.values())

    def read(self, split: str, *, where: str) -> Arrays:
        """Images and int32 labels of a split, or of a part or join of splits.

        Raises:
          ValueError: there is no such split, or it holds no example.
        """
        parts = self.parts(split, where=where)
        pieces = [[np.asarray(x)[part] for x in self.splits[name]] for name, part in parts]
        if len(pieces) == 1:
            images, labels = pieces[0]  # not copied
        else:
            images, labels = (np.concatenate(column) for column in zip(*pieces, strict=True))
        return images, labels.astype(np.int32)

    def parts(self, split: str, *, where: str) -> list[tuple[str, slice]]:
        """What the expression joins, as `parse_split`, whose errors it raises."""
        sizes = {name: len(labels) for name, (_, labels) in self.splits.items()}
        return parse_split(split, sizes, where=where)

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


def _checked(name: str, arrays: Arrays) -> Arrays:
    fix = (
        "give (images, labels) of at least one image: uint8 (n, height, width, channels), and "
        "integers (n,)"
    )
    if not isinstance(arrays, tuple | list) or len(arrays) != 2:
        raise ValueError(f"split {name!r} is a {type(arrays).__name__}: {fix}")
    images, labels = map(np.asarray, arrays)
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
        raise ValueError(f"the images of split {name!r} are {images.dtype} {images.shape}: {fix}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"the labels of split {name!r} are {labels.dtype} {labels.shape}, for {len(images)} "
            f"images: {fix}"
        )
    if labels.min() < 0:
        raise ValueError(f"split {name!r} has label {labels.min()}: labels count from 0")
    return images, labels


def _require_function(function: Callable[[], InMemory]) -> None:
    if not callable(function):
        raise ValueError(
            f"{function!r} is not a data set: make it a function without arguments that returns "
            "data.InMemory"
        )


DATASETS: Registry[Callable[[], InMemory]] = Registry("data set", _require_function)


def register_dataset(name: str) -> Callable[[Callable[[], InMemory]], Callable[[], InMemory]]:
    """A decorator that lets configs name a data set of your own: ``data.name = "mine"``.

    Without registration a config can say ``data.name = "module:function"``.

    Args:
      name: a new one.

    Raises:
      ValueError: the name is taken.
    """
    return functools.partial(DATASETS.register, name)


@functools.lru_cache(maxsize=4)
def make(name: str) -> InMemory:
    """What the function of a registered data set returns; it is called once.

    Raises:
      ValueError: there is none, it cannot be imported, it fails, or it returns something else.
    """
    function = DATASETS[name]
    try:
        made = function()
    except Exception as error:  # somebody's own function
        raise ValueError(f"data.name={name!r} failed ({type(error).__name__}: {error})") from error
    if not isinstance(made, InMemory):
        raise ValueError(
            f"data.name={name!r} returned a {type(made).__name__}: make it return data.InMemory"
        )
    return made
