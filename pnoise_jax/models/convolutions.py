"""Convolutions and batch norms that several families share."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from pnoise_jax.models.products import multiply_rows


def batch_norm(*, train: bool, epsilon: float, axis_name: str | None, dtype: Any) -> Callable:
    """Makes a batch norm given its `name`, with PyTorch's default momentum.

    Args:
      train: normalise by the batch's own statistics, and update the running ones.
      epsilon: added to the variance.
      axis_name: axis of `shard_map` or `pmap` over which the statistics are shared, or None.
      dtype: dtype of the computation; parameters and statistics are float32.
    """
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=epsilon,
        axis_name=axis_name,
        dtype=dtype,
    )


def pointwise(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], *others: Any, **options: Any
) -> jax.Array:
    """A 1x1 convolution; on CPUs a product of matrices, whose gradients XLA computes faster.

    For `conv_general_dilated` of `flax.linen.Conv`.
    """

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = x[:, :: strides[0], :: strides[1]]  # where nothing is padded
        dimensions = (((3,), (0,)), ((), ()))
        return multiply_rows(x, kernel[0, 0], dimensions, precision=options.get("precision"))

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, *others, **options)

    return lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def patchwise(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], *others: Any, **options: Any
) -> jax.Array:
    """A convolution whose strides are its kernel's sides; on NVIDIA GPUs `convolve_patches`.

    For `conv_general_dilated` of `flax.linen.Conv`, without padding or dilation.
    """

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, *others, **options)

    if AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types:
        return convolution(x, kernel)  # JAX cannot tell where the reshaped patches would go
    return lax.platform_dependent(x, kernel, cuda=convolve_patches, default=convolution)


def convolve_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same as a 1x1 convolution, whose channels are all values of a patch.

    cuDNN has no fast kernels for three channels. A product of matrices would be as fast, but XLA
    then puts the batch last in memory, and transposes tokens back and forth in each block.

    Args:
      x: (batch, height, width, channels); what is left beside the last whole patch is not read.
      kernel: (height, width, channels, features) of a patch.

    Returns:
      (batch, rows, columns, features).
    """
    height, width = kernel.shape[:2]
    rows, columns = x.shape[1] // height, x.shape[2] // width
    x = x[:, : rows * height, : columns * width]
    x = x.reshape(x.shape[0], rows, height, columns, width, x.shape[3]).swapaxes(2, 3)
    return lax.conv_general_dilated(
        x.reshape(x.shape[0], rows, columns, -1),
        kernel.reshape(1, 1, -1, kernel.shape[3]),
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def of_images(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Any, **options: Any
) -> jax.Array:
    """A convolution; on CPUs `gather_and_multiply` where its result has at most 2 x 2 pixels.

    There XLA's own takes up to 45 times as long. For `conv_general_dilated` of `flax.linen.Conv`,
    without dilation, with the padding in pixels.
    """

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    sides = (
        (size + sum(pads) - side) // stride + 1
        for size, pads, side, stride in zip(
            x.shape[1:3], padding, kernel.shape[:2], strides, strict=True
        )
    )
    if max(sides) > 2 or AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types:
        return convolution(x, kernel)
    product = functools.partial(
        gather_and_multiply, strides=strides, padding=padding, precision=options.get("precision")
    )
    return lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def gather_and_multiply(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    precision: Any = None,
) -> jax.Array:
    """A convolution as one product of matrices ("im2col"), (batch, height', width', features).

    Args:
      x: (batch, height, width, channels).
      kernel: (height, width, channels, features).
      strides, padding: in pixels.
      precision: as `jax.lax.dot_general` has it.
    """
    height, width, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = (
        (size - side) // stride + 1
        for size, side, stride in zip(x.shape[1:3], (height, width), strides, strict=True)
    )
    neighbours = [
        x[
            :,
            i : i + (rows - 1) * strides[0] + 1 : strides[0],
            j : j + (columns - 1) * strides[1] + 1 : strides[1],
        ]
        for i in range(height)
        for j in range(width)
    ]
    gathered = jnp.concatenate(neighbours, axis=-1)
    kernel = kernel.reshape(height * width * channels, features)
    return jnp.matmul(gathered, kernel, precision=precision)


def depthwise(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Any, **options: Any
) -> jax.Array:
    """A depthwise convolution; on CPUs a sum over the kernel, as XLA's own is slow there.

    For `conv_general_dilated` of `flax.linen.Conv`, without dilation.
    """

    def total(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pads = padding
        if isinstance(padding, str):
            pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
        return _sum_of_slices(x, kernel, strides=strides, padding=tuple(map(tuple, pads)))

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    return lax.platform_dependent(x, kernel, cpu=total, default=convolution)


# Traced once for all blocks of a stage.
@functools.partial(jax.jit, static_argnames=("strides", "padding"), inline=True)
def _sum_of_slices(
    x: jax.Array, kernel: jax.Array, *, strides: tuple[int, int], padding: tuple[tuple, tuple]
) -> jax.Array:
    """The same, (batch, height', width', channels): of the image, one slice for each weight."""
    height, width = kernel.shape[:2]
    wide, weights = x.astype(jnp.float32), kernel.astype(jnp.float32)  # as a convolution sums
    wide = jnp.pad(wide, ((0, 0), *padding, (0, 0)))
    rows, columns = (
        (side - size) // stride + 1
        for side, size, stride in zip(wide.shape[1:3], (height, width), strides, strict=True)
    )
    total = jnp.zeros((), jnp.float32)
    for i in range(height):
        for j in range(width):
            last = (i + (rows - 1) * strides[0] + 1, j + (columns - 1) * strides[1] + 1)
            part = wide[:, i : last[0] : strides[0], j : last[1] : strides[1]]
            total = total + part * weights[i, j, 0][None, None, None]
    return total.astype(x.dtype)
