"""3x3 convolutions with fewer multiplications, for CPUs.

Winograd's algorithm, as in Lavin and Gray (F(2x2, 3x3), https://arxiv.org/abs/1509.09308): the four
results of a tile of 4x4 pixels take 16 multiplications for each channel and feature instead of 36.
Sums and differences transform the pixels and weights first, and their products afterwards.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pnoise_jax.models.parts.device import on_one_device
from pnoise_jax.models.parts.products import multiply_rows

# With fewer channels the transforms take longer than the multiplications that they save.
_MIN_CHANNELS = 64
# On each side of the result: with fewer pixels, much of each tile lies outside.
_MIN_PIXELS = 4

Pads = tuple[tuple[int, int], tuple[int, int]]


def is_faster(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[Sequence[int]]
) -> bool:
    """Whether `convolve` computes this convolution, and is expected to be faster on a CPU.

    In 16 bits, the differences of pixels would lose too many digits. Several devices would exchange
    the gradients of 16 transformed weights instead of 9.

    Args:
      x, kernel: as in `convolve`.
      strides: in pixels.
      padding: before and after the rows and the columns, in pixels.
    """
    *sides, channels, features = kernel.shape
    exact = (
        x.shape[3] == channels
        and x.dtype == kernel.dtype
        and kernel.dtype in (jnp.float32, jnp.float64)
    )
    if not exact or sides != [3, 3] or tuple(strides) != (1, 1) or not on_one_device():
        return False
    pads = [pad for pair in padding for pad in pair]
    results = (size + sum(pair) - 2 for size, pair in zip(x.shape[1:3], padding, strict=True))
    wide = min(channels, features) >= _MIN_CHANNELS
    return wide and min(pads) >= 0 and min(results) >= _MIN_PIXELS


def convolve(
    x: jax.Array, kernel: jax.Array, *, padding: Sequence[Sequence[int]], precision: Any = None
) -> jax.Array:
    """The convolution with strides of one pixel.

    Between a forward pass and its gradient, the transformed pixels are kept (about four times the
    memory of x), as are the transformed weights (16/9 of the kernel's). A pixel that is not finite
    makes all four results of its tiles NaN, and so do infinite weights.

    Args:
      x: (batch, height, width, channels).
      kernel: (3, 3, channels, features), of the same dtype.
      padding: before and after the rows and the columns, in pixels, at least 0.
      precision: of the products, as in `jax.lax.dot_general`.

    Returns:
      (batch, height', width', features). Differentiable in both modes.
    """
    pads = tuple((before, after) for before, after in padding)
    precision = tuple(precision) if isinstance(precision, list) else precision
    return _convolve(x, kernel, padding=pads, precision=precision)


# Traced once for all blocks of a stage.
@functools.partial(jax.jit, static_argnames=("padding", "precision"))
def _convolve(x: jax.Array, kernel: jax.Array, *, padding: Pads, precision: Any) -> jax.Array:
    height, width = (size + sum(pair) - 2 for size, pair in zip(x.shape[1:3], padding, strict=True))
    rows, columns = (height + 1) // 2, (width + 1) // 2  # of tiles
    pixels = _transform_image(x, (rows, columns), padding)
    weights = [_transform_weights(of_row) for of_row in _transform_weights(kernel)]
    multiply = functools.partial(
        multiply_rows, dimension_numbers=(((3,), (0,)), ((), ())), precision=precision
    )
    products = [
        [multiply(p, w) for p, w in zip(pixels_of_row, weights_of_row, strict=True)]
        for pixels_of_row, weights_of_row in zip(pixels, weights, strict=True)
    ]
    pairs = [jnp.stack(_transform_products(of_row), axis=3) for of_row in products]
    results = jnp.stack(_transform_products(pairs), axis=2)
    results = results.reshape(x.shape[0], 2 * rows, 2 * columns, kernel.shape[3])
    return results[:, :height, :width]


def _transform_image(
    x: jax.Array, tiles: tuple[int, int], padding: Pads
) -> list[tuple[jax.Array, ...]]:
    """4 rows of 4 arrays (batch, rows of tiles, columns of tiles, channels).

    Tiles overlap: each starts two pixels after the previous one. Pairs of pixels do not overlap, so
    the gradient need not scatter.

    Args:
      x: (batch, height, width, channels).
      tiles: how many, in rows and columns.
      padding: as in `convolve`.
    """
    rows, columns = tiles
    befores = [before for before, _ in padding]
    afters = [
        2 * (number + 1) - before - size
        for number, before, size in zip(tiles, befores, x.shape[1:3], strict=True)
    ]
    x = jnp.pad(x, ((0, 0), *zip(befores, afters, strict=True), (0, 0)))
    x = x.reshape(x.shape[0], rows + 1, 2, columns + 1, 2, x.shape[-1])
    return [
        _transform_pixels(of_row[:, :, :, 0], of_row[:, :, :, 1], axis=2)
        for of_row in _transform_pixels(x[:, :, 0], x[:, :, 1], axis=1)
    ]


def _transform_pixels(even: jax.Array, odd: jax.Array, *, axis: int) -> tuple[jax.Array, ...]:
    """The paper's B^T of each tile's four pixels along an axis: an even one, odd, even, odd.

    Args:
      even, odd: pixels 0, 2, … and 1, 3, … along the axis: two per tile, and two more in total.
      axis: of rows or columns.
    """
    tiles = even.shape[axis] - 1
    (first, third), (second, fourth) = (
        [lax.slice_in_dim(x, n, n + tiles, axis=axis) for n in (0, 1)] for x in (even, odd)
    )
    return first - third, second + third, third - second, second - fourth


def _transform_weights(kernel: jax.Array) -> tuple[jax.Array, ...]:
    """The paper's G: four weights from the three along the first axis."""
    outer, inner = (kernel[0] + kernel[2]) / 2, kernel[1] / 2
    return kernel[0], outer + inner, outer - inner, kernel[2]


def _transform_products(products: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The paper's A^T of four products: two neighbouring results."""
    return products[0] + products[1] + products[2], products[1] - products[2] - products[3]
