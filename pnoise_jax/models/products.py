"""Products of tokens or pixels with a matrix, as each kind of device computes them fast."""

import functools
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AxisType

from pnoise_jax.models.device import on_cpu


def multiply_rows(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` of a dense layer, with the tokens or pixels of all examples as rows.

    For the gradient of the kernel, XLA's CPU backend transposes activations of three axes, of which
    two are summed over, but not those of two.

    Args:
      x: (..., dim).
      kernel: (dim, features); one with more axes is multiplied as it is.
      dimension_numbers: as `jax.lax.dot_general` has them: the last axis of x with the first.
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


# Of tokens, (..., dim): `flax.linen.Dense`, and faster in training on CPUs.
dense = functools.partial(nn.Dense, dot_general=_multiply)
