"""Convolutions and batch norms that several families share."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from pnoise_jax.models.parts import winograd
from pnoise_jax.models.parts.device import on_cpu, on_one_device
from pnoise_jax.models.parts.products import multiply_rows

# Examples come first and channels last; a kernel is (height, width, channels, features).
_LAYOUT = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def batch_norm(*, train: bool, epsilon: float, axis_name: str | None, dtype: Any) -> Callable:
    """A function that makes a batch norm given its `name`, with PyTorch's default momentum.

    Args:
      train: whether to normalise by the batch's own statistics, and update the running ones.
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
    """A 1x1 convolution; on CPUs a matrix product, whose gradients XLA computes faster.

    For `conv_general_dilated` of `flax.linen.Conv`.
    """

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = x[:, :: strides[0], :: strides[1]]  # nothing is padded
        dimensions = (((3,), (0,)), ((), ()))
        return multiply_rows(x, kernel[0, 0], dimensions, precision=options.get("precision"))

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, *others, **options)

    return lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def patchwise(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], *others: Any, **options: Any
) -> jax.Array:
    """A convolution with strides equal to the kernel's sides; by patches on CPUs and NVIDIA GPUs.

    For `conv_general_dilated` of `flax.linen.Conv`, without padding or dilation.
    """

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, *others, **options)

    if AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types:
        return convolution(x, kernel)  # JAX cannot tell where the reshaped patches would go
    product = functools.partial(multiply_patches, precision=options.get("precision"))
    return lax.platform_dependent(
        x, kernel, cpu=product, cuda=convolve_patches, default=convolution
    )


def multiply_patches(x: jax.Array, kernel: jax.Array, *, precision: Any = None) -> jax.Array:
    """Computes `patchwise` as a matrix product, whose rows are the patches.

    In a loop, such as over micro-batches, XLA's CPU backend computes the gradient of a
    convolution's kernel value by value.

    Args:
      x, kernel: as in `convolve_patches`, which returns the same.
      precision: as in `jax.lax.dot_general`.
    """
    patches = _cut_patches(x, kernel.shape[:2])
    kernel = kernel.reshape(-1, kernel.shape[3])
    return multiply_rows(patches, kernel, (((3,), (0,)), ((), ())), precision=precision)


def convolve_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `patchwise` as a 1x1 convolution, whose channels are all values of a patch.

    cuDNN has no fast kernels for three channels. A matrix product would be as fast, but XLA then
    puts the batch last in memory, and transposes tokens back and forth in each block.

    Args:
      x: (batch, height, width, channels); pixels beyond the last whole patch are not read.
      kernel: (height, width, channels, features) of a patch.

    Returns:
      (batch, rows, columns, features).
    """
    return lax.conv_general_dilated(
        _cut_patches(x, kernel.shape[:2]),
        kernel.reshape(1, 1, -1, kernel.shape[3]),
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _cut_patches(x: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """Cuts patches of this height and width: (batch, rows, columns, all values of a patch)."""
    height, width = sides
    rows, columns = x.shape[1] // height, x.shape[2] // width
    x = x[:, : rows * height, : columns * width]
    x = x.reshape(x.shape[0], rows, height, columns, width, x.shape[3]).swapaxes(2, 3)
    return x.reshape(x.shape[0], rows, columns, -1)


def of_images(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Any, **options: Any
) -> jax.Array:
    """A convolution; on CPUs in a form that is fast there, elsewhere XLA's own.

    On CPUs, `gather_and_multiply` computes results of at most 2 x 2, for which XLA's own takes up
    to 45 times as long; `winograd.convolve` computes those with 3 x 3 kernels for which it
    `is_faster`, on one device; and `convolve_on_cpu` computes all others. Other layouts, dilated
    convolutions and groups of channels are left to XLA. For `conv_general_dilated` of
    `flax.linen.Conv`.

    Args:
      x: (batch, height, width, channels).
      kernel: (height, width, channels, features).
      strides: in pixels.
      padding: before and after the rows and columns, in pixels, or "SAME" or "VALID".
      **options: of `jax.lax.conv_general_dilated`.

    Returns:
      (batch, height', width', features).
    """

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    layout = lax.conv_dimension_numbers(x.shape, kernel.shape, options.get("dimension_numbers"))
    unusual = layout != _LAYOUT or any(
        option not in (None, 1, (1, 1))
        for name, option in options.items()
        if name not in ("dimension_numbers", "precision")
    )
    if unusual or AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types:
        return convolution(x, kernel)
    padding = _in_pixels(padding, x, kernel, strides)
    sides = (
        (size + sum(pads) - side) // stride + 1
        for size, pads, side, stride in zip(
            x.shape[1:3], padding, kernel.shape[:2], strides, strict=True
        )
    )
    if max(sides) <= 2:
        compute = functools.partial(gather_and_multiply, strides=strides)
    elif winograd.is_faster(x, kernel, strides, padding) and on_cpu():  # skip tracing elsewhere
        compute = winograd.convolve
    else:
        compute = functools.partial(convolve_on_cpu, strides=strides)
    compute = functools.partial(compute, padding=padding, precision=options.get("precision"))
    return lax.platform_dependent(x, kernel, cpu=compute, default=convolution)


def convolve_on_cpu(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    precision: Any = None,
) -> jax.Array:
    """A convolution whose gradients XLA's CPU backend computes fast.

    That backend's convolutions require examples first and channels last, so the kernel's gradient,
    which sums over examples, needs x transposed. XLA does that by itself, but not within loops,
    such as over micro-batches, where it computes the gradient value by value: that took 66 times as
    long. Also, operations that it fuses into the transposition read memory with large strides; with
    32 examples, this took a fifth of a step of ResNet-18 before `winograd`. So x is transposed here
    for about 8 examples at a time.

    Args:
      x: (batch, height, width, channels).
      kernel: (height, width, channels, features).
      strides, padding: in pixels.
      precision: as in `jax.lax.conv_general_dilated`.

    Returns:
      (batch, height', width', features). Differentiable in both modes.
    """
    convolve = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, precision=precision
    )

    @jax.custom_jvp
    def convolution(x, kernel):
        return convolve(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    # The tangents are the same convolution. In reverse mode, JAX transposes them, which exchanges
    # inputs and outputs; the layouts here are those that it turns into the layout above.
    def of_x(tangent, _, x, kernel):
        kernel = kernel.swapaxes(2, 3)
        return convolve(tangent, kernel, dimension_numbers=("NHWC", "HWOI", "NHWC"))

    def of_kernel(tangent, _, x, kernel):
        tangent = tangent.transpose(2, 0, 1, 3)
        results = [
            convolve(
                part.transpose(3, 1, 2, 0), tangent, dimension_numbers=("CHWN", "IHWO", "HWNC")
            )
            for part in jnp.array_split(x, _parts(len(x)))
        ]
        return jnp.concatenate(results, axis=2).transpose(2, 0, 1, 3)

    convolution.defjvps(of_x, of_kernel)
    return convolution(x, kernel)


def _in_pixels(
    padding: Any, x: jax.Array, kernel: jax.Array, strides: tuple[int, int]
) -> Sequence[tuple[int, int]]:
    """The padding before and after rows and columns, in pixels, also for "SAME" and "VALID"."""
    if isinstance(padding, str):
        return lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return padding


def _parts(examples: int) -> int:
    """Into how many parts to divide examples; 1 if they may be spread over devices."""
    return max(1, min(4, examples // 8)) if on_one_device() else 1


def gather_and_multiply(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    precision: Any = None,
) -> jax.Array:
    """A convolution as one matrix product ("im2col"), (batch, height', width', features).

    Args:
      x: (batch, height, width, channels).
      kernel: (height, width, channels, features).
      strides, padding: in pixels.
      precision: as in `jax.lax.dot_general`.
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
    """A depthwise convolution; on CPUs a sum over the kernel, because XLA's own is slow there.

    For `conv_general_dilated` of `flax.linen.Conv`, without dilation.
    """

    def total(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pads = tuple(map(tuple, _in_pixels(padding, x, kernel, strides)))
        return _sum_of_slices(x, kernel, strides=strides, padding=pads)

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    return lax.platform_dependent(x, kernel, cpu=total, default=convolution)


# Traced once for all blocks of a stage.
@functools.partial(jax.jit, static_argnames=("strides", "padding"), inline=True)
def _sum_of_slices(
    x: jax.Array, kernel: jax.Array, *, strides: tuple[int, int], padding: tuple[tuple, tuple]
) -> jax.Array:
    """`depthwise` as a sum of one slice of x per weight, (batch, height', width', channels)."""
    height, width = kernel.shape[:2]
    wide, weights = x.astype(jnp.float32), kernel.astype(jnp.float32)  # as in convolutions
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
