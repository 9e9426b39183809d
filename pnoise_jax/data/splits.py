"""Parses parts and joins of splits, in TFDS's syntax: ``train[:300]``, ``train+test``."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import tensorflow_datasets as tfds

from pnoise_jax.data.stored import records


def parse_split(
    split: str, shard_lengths: Mapping[str, Sequence[int]], *, where: str
) -> list[tuple[str, slice]]:
    """The parts of whole splits that the expression joins, in order.

    Args:
      split: an expression such as ``train[:10%]`` or ``train[2shard]``.
      shard_lengths: for each whole split, the number of examples in each of its files.
      where: the data set or its directory, for error messages.

    Returns:
      For each part, the name of the whole split and the slice, with start and stop as indices.

    Raises:
      ValueError: there is no such split, or a part is empty.
    """
    sizes = {name: sum(lengths) for name, lengths in shard_lengths.items()}
    infos = {
        name: SimpleNamespace(num_examples=sizes[name], shard_lengths=list(lengths))
        for name, lengths in shard_lengths.items()
    }
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
        problem = "A part of it is empty."
    listed = ", ".join(f"{name} ({size} examples)" for name, size in sizes.items())
    raise ValueError(
        f"split={split!r} (data.train_split, data.test_split) cannot be read from {where}: "
        f"{problem} Available splits: {listed or 'none'}, and parts such as 'train[:300]'."
    )
