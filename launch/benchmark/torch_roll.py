"""PyTorch's part of launch.benchmark noise: the cyclic shift as torch.roll."""

from collections.abc import Callable
from typing import Any

import jax


def prepare(x: jax.Array, *, strength: float, compiled: bool) -> Callable[[int], Any]:
    """A call that applies ``(1 - strength) x + strength roll(x)`` as often as it is told.

    Each is applied to what the last returned; the call waits for the end and returns the result.

    Args:
      x: (k, ...), on one device; PyTorch gets the same memory.
      strength: of the shift.
      compiled: by `torch.compile`, when first called.
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
