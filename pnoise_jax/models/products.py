"""Products of tokens or pixels with a matrix, as each kind of device computes them fast."""

import functools
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AxisType

from pnoise_jax.models.device import on_cpu


def product_of_rows(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` for dense layers; on CPUs with the tokens of all examples as rows.

    For the gradient of the kernel, XLA's CPU backend transposes activations of three axes, of which
    two are summed over, but not those of two.

    Args:
      x: (..., dim).
      kernel: (dim, features), or with more axes, of which nothing is changed.
      dimension_numbers: as `jax.lax.dot_general` has them: the last axis of x with the first.
      **options: of `jax.lax.dot_general`.
    """
    product = functools.partial(jax.lax.dot_general, dimension_numbers=dimension_numbers, **options)
    explicit = AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types
    if x.ndim < 3 or kernel.ndim != 2 or explicit or not on_cpu():
        return product(x, kernel)
    dimension_numbers = (((1,), (0,)), ((), ()))
    rows = product(x.reshape(-1, x.shape[-1]), kernel, dimension_numbers=dimension_numbers)
    return rows.reshape(*x.shape[:-1], rows.shape[-1])


# Of tokens, (..., dim): `flax.linen.Dense`, and faster in training on CPUs.
dense = functools.partial(nn.Dense, dot_general=product_of_rows)
