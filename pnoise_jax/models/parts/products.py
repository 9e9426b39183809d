"""Products of tokens or pixels with a matrix, in forms that are fast on each kind of device."""

import functools
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AxisType

from pnoise_jax.models.parts.device import on_cpu


def multiply_rows(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` of a dense layer, with the tokens or pixels of all examples as rows.

    For the gradient of the kernel, XLA's CPU backend transposes activations with three axes, two of
    which are summed over, but not activations with two axes.

    Args:
      x: (..., dim).
      kernel: (dim, features); for a kernel with more axes, rows are not merged.
      dimension_numbers: as in `jax.lax.dot_general`: the last axis of x with the first of the
        kernel.
      **options: of `jax.lax.dot_general`.
    """
    product = functools.partial(jax.lax.dot_general, **options)
    # With explicit axes JAX cannot tell where the merged rows would go.
    explicit = AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types
    if x.ndim < 3 or kernel.ndim != 2 or explicit:
        return product(x, kernel, dimension_numbers)
    rows = product(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())))
    return rows.reshape(*x.shape[:-1], rows.shape[-1])


def _multiply(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, **options: Any) -> jax.Array:
    product = multiply_rows if on_cpu() else jax.lax.dot_general
    return product(x, kernel, dimension_numbers, **options)


# `flax.linen.Dense` for tokens, (..., dim), but faster in training on CPUs.
dense = functools.partial(nn.Dense, dot_general=_multiply)
