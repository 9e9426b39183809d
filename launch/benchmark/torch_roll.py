"""The cyclic shift as PyTorch's torch.roll, for pnoise benchmark noise."""

from collections.abc import Callable
from typing import Any

import jax


def prepare(x: jax.Array, *, strength: float, compiled: bool) -> Callable[[int], Any]:
    """Returns a function that applies ``(1 - strength) x + strength roll(x)`` a number of times.

    Each application uses the previous result; the function waits for the last one and returns it.

    Args:
      x: (k, ...), on one device; PyTorch uses the same memory.
      strength: the strength of the shift.
      compiled: whether `torch.compile` compiles it on the first call.
    """
    import torch  # pyright: ignore[reportMissingImports]

    rows = torch.from_dlpack(x)

    def mix(rows):
        return (1 - strength) * rows + strength * torch.roll(rows, 1, 0)

    mix = torch.compile(mix, dynamic=False, disable=not compiled)

    @torch.inference_mode()
    def apply(times: int) -> jax.Array:
        result = rows
        for _ in range(times):
            result = mix(result)
        if rows.is_cuda:
            torch.cuda.synchronize()
        return jax.dlpack.from_dlpack(result)

    return apply
