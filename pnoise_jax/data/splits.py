"""Parts and joins of splits, in TFDS's words: ``train[:300]``, ``train+test``."""

from collections.abc import Mapping
from types import SimpleNamespace

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
