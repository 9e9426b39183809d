"""Parts and joins of splits, in TFDS's words: ``train[:300]``, ``train+test``."""

from collections.abc import Iterable, Mapping
from types import SimpleNamespace

import numpy as np
import tensorflow_datasets as tfds

from pnoise_jax.data import records


def parse_split(split: str, sizes: Mapping[str, int], *, where: str) -> list[tuple[str, slice]]:
    """What the expression joins, in order: parts of whole splits, with start and stop as indices.

    Args:
      split: such as ``train[:10%]``.
      sizes: the number of examples of each whole split.
      where: what holds them, for the error.

    Raises:
      ValueError: there is no such split, or a part of it holds no example.
    """
    infos = {name: SimpleNamespace(num_examples=size) for name, size in sizes.items()}
    try:
        instruction = tfds.core.ReadInstruction.from_spec(split)
        absolute = instruction.to_absolute(infos)
        parts = [
            (part.splitname, slice(*slice(part.from_, part.to).indices(sizes[part.splitname])))
            for part in absolute
        ]
    except (ValueError, AssertionError, NotImplementedError) as error:
        problem = records.first_line(error)
    else:
        if all(range(sizes[whole])[part] for whole, part in parts):
            return parts
        problem = "A part of it holds no example."
    listed = ", ".join(f"{name} ({size} examples)" for name, size in sizes.items())
    raise ValueError(
        f"split={split!r} (data.train_split, data.test_split) cannot be read from {where}: "
        f"{problem} There are: {listed or 'none'}, and parts of them such as 'train[:300]'."
    )


def count_shared(ours: Iterable[tuple[str, slice]], theirs: Iterable[tuple[str, slice]]) -> int:
    """How many examples two splits of one data set have in common; each as `parse_split` has it."""
    first, second = _indices(ours), _indices(theirs)
    return sum(len(np.intersect1d(first[whole], second[whole])) for whole in first.keys() & second)


def _indices(parts: Iterable[tuple[str, slice]]) -> dict[str, np.ndarray]:
    """By whole split, the indices of the examples that the parts take from it."""
    by_split: dict[str, list[np.ndarray]] = {}
    for whole, part in parts:
        by_split.setdefault(whole, []).append(np.arange(part.start, part.stop))
    return {whole: np.concatenate(arrays) for whole, arrays in by_split.items()}
