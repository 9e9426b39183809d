"""Named random streams: every use of a step's key has a name instead of a number."""

import dataclasses
import zlib

import jax

# The streams of classification keep the numbers from before streams had names, so that a seed
# still gives the same run. The number of any other name is its checksum.
_NUMBERS = {"noise": 0, "dropout": 1, "mixup": 2}


@dataclasses.dataclass(frozen=True)
class RandomStreams:
    """Keys by name, derived from one key; a pure function of the key and the name.

    Attributes:
      key: the key of the step, or of one of its micro-batches.
    """

    key: jax.Array

    def __getitem__(self, name: str) -> jax.Array:
        """The key of a stream, such as "noise"; new names need no declaration."""
        number = _NUMBERS.get(name)
        if number is None:
            number = zlib.crc32(name.encode()) | 2**31  # never one of the numbers above
        return jax.random.fold_in(self.key, number)
