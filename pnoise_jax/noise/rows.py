"""Operations on the rows of a group: shift, sum, split, gather.

"Rows" are the slices along one axis of an array: a batch's examples, or an image's tokens.
If the rows are spread over devices, each operation moves as little data as possible:

- under ``jit``, the compiler partitions plain array code; `shift` and `total` are written such that
  it finds a collective-permute and an all-reduce of one row, forward and backward;
- inside ``shard_map`` and ``pmap``, ``axis_name`` names the mapped axis, as in Flax's BatchNorm.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType

AxisName = str | tuple[str, ...]


def place_freely(function: Callable) -> Callable:
    """Wraps ``function(x, ...)`` to accept x of any sharding and return a result sharded like x.

    A NumPy array of float64 becomes float32, unless JAX is set to 64 bits.

    On a mesh with explicit axes, JAX requires the sharding of every array; inside ``function`` it
    does not.
    """

    def placed(x, *args):
        x = jnp.asarray(x)
        sharding = jax.typeof(x).sharding
        if AxisType.Explicit not in sharding.mesh.axis_types:
            return function(x, *args)
        return jax.sharding.auto_axes(function, out_sharding=sharding)(x, *args)

    return placed


def as_factor(value: jax.Array | float, dtype: jax.typing.DTypeLike) -> jax.Array | float:
    """A number as a factor for arrays of this dtype; Python numbers fit any and stay unchanged."""
    if isinstance(value, float):  # NumPy's float64 is also an instance of float
        return float(value)
    return value if isinstance(value, int) else jnp.asarray(value, dtype)


def expand(mask: jax.Array, x: jax.Array) -> jax.Array:
    """``mask`` with trailing axes of length 1, so that it broadcasts against x."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def preceding(mask: jax.Array, shift: int) -> jax.Array:
    """For each row, the index of the row that a cyclic shift of the kept rows moves there.

    Args:
      mask: (..., k) bool, the rows to keep. Excluded rows get their own index.
      shift: by how many kept rows.

    Returns:
      int32 (..., k), indices into the last axis.
    """
    k = mask.shape[-1]
    mask = mask.astype(bool)
    kept_first = jnp.argsort(~mask, axis=-1, stable=True)
    rank = jnp.cumsum(mask, axis=-1) - 1
    count = jnp.maximum(mask.sum(axis=-1, keepdims=True), 1)
    source = jnp.take_along_axis(kept_first, jnp.where(mask, (rank - shift) % count, 0), axis=-1)
    return jnp.where(mask, source, jnp.arange(k)).astype(jnp.int32)


def mirrored(mask: jax.Array) -> jax.Array:
    """For each row, the index of the row that reversing the order of the kept rows moves there.

    Args:
      mask: (..., k) bool, the rows to keep. Excluded rows get their own index.

    Returns:
      int32 (..., k), indices into the last axis.
    """
    mask = mask.astype(bool)
    kept_first = jnp.argsort(~mask, axis=-1, stable=True)
    rank = jnp.cumsum(mask, axis=-1) - 1
    last = rank[..., -1:]
    source = jnp.take_along_axis(kept_first, jnp.where(mask, last - rank, 0), axis=-1)
    return jnp.where(mask, source, jnp.arange(mask.shape[-1])).astype(jnp.int32)


def flip(x: jax.Array, *, axis: int = 0, axis_name: AxisName | None = None) -> jax.Array:
    """Reverses the order of the rows, over all devices of ``axis_name``: the last comes first.

    Every device sends its rows to one other, once; so does the backward pass.
    """
    x = jnp.flip(x, axis)
    if axis_name is None:
        return x
    n = lax.axis_size(axis_name)
    return lax.ppermute(x, axis_name, [(i, n - 1 - i) for i in range(n)])


def shift(
    x: jax.Array, amount: int, *, axis: int = 0, axis_name: AxisName | None = None
) -> jax.Array:
    """Moves row i to row ``i + amount``, cyclically, over all devices of ``axis_name``."""
    if axis_name is None:
        return _roll(x, amount, axis)
    local, devices = x.shape[axis], lax.axis_size(axis_name)
    count = local * devices
    amount = (amount + count // 2) % count - count // 2  # the shorter way round
    direction = 1 if amount > 0 else -1
    whole_blocks, remainder = divmod(abs(amount), local)
    x = _rotate_devices(x, direction * whole_blocks, axis_name)
    if not remainder:
        return x
    if direction > 0:
        stay, leave = jnp.split(x, [local - remainder], axis=axis)
        parts = [_rotate_devices(leave, 1, axis_name), stay]
    else:
        leave, stay = jnp.split(x, [remainder], axis=axis)
        parts = [stay, _rotate_devices(leave, -1, axis_name)]
    return jnp.concatenate(parts, axis=axis)


def _rotate_devices(x: jax.Array, by: int, axis_name: AxisName) -> jax.Array:
    n = lax.axis_size(axis_name)
    return lax.ppermute(x, axis_name, [(i, (i + by) % n) for i in range(n)]) if by % n else x


def _roll(x: jax.Array, amount: int, axis: int) -> jax.Array:
    roll = functools.partial(jnp.roll, shift=amount, axis=axis)
    if not _on_one_device():
        return roll(x)

    def take(x):
        source = (jnp.arange(x.shape[axis]) - amount) % x.shape[axis]
        return jnp.take(x, source, axis, mode="clip")

    # On NVIDIA GPUs, XLA joins two slices with a kernel that moves one number at a time, including
    # everything fused into it. Rows that are spread over devices cannot be taken one by one.
    return lax.platform_dependent(x, cuda=take, default=roll)


def _on_one_device() -> bool:
    """Whether there is a current mesh with one device, so that ``jit`` cannot spread the rows."""
    return jax.sharding.get_abstract_mesh().size == 1


def total(
    x: jax.Array,
    *,
    axis: int = 0,
    mask: jax.Array | None = None,
    axis_name: AxisName | None = None,
) -> tuple[jax.Array, jax.Array | int]:
    """The sum of the kept rows, and their number.

    Returns:
      The sum, of length 1 along ``axis`` (float32 for a bfloat16 x), and the count: an int, or,
      with a mask, an array that broadcasts to x.
    """
    k = x.shape[axis]
    if mask is None:
        count = k if axis_name is None else k * lax.axis_size(axis_name)
    else:
        mask = expand(mask, x)
        x = jnp.where(mask, x, 0)
        count = mask.sum(axis, keepdims=True, dtype=np.promote_types(x.dtype, np.float32))
        count = count if axis_name is None else lax.psum(count, axis_name)
    summed = _sum_rows(x, axis)
    if axis_name is not None:
        tracked = jax.typeof(x).manual_axis_type.varying  # set by shard_map; empty under pmap
        summed = lax.psum(summed, axis_name)
        if tracked:  # so that the backward pass reduces to one row before it crosses devices
            summed = lax.pcast(summed, axis_name, to="varying")
    return summed, count


def _sum_rows(x: jax.Array, axis: int) -> jax.Array:
    """The sum along ``axis``, kept as length 1, accumulated in at least float32.

    On CPUs, XLA reduces a leading axis one strided element at a time; a product with a row of ones
    streams through memory (a quarter of the time at 64 and 256 rows of 197 x 768). With one row of
    ones, XLA would first convert bfloat16; with two it does not.
    """
    dtype = np.promote_types(x.dtype, jnp.float32)

    def as_product(x):
        ones = jnp.ones(
            (2 if x.dtype == jnp.bfloat16 and _on_one_device() else 1, x.shape[0]), x.dtype
        )
        product = jnp.tensordot(
            ones, x, 1, precision=lax.Precision.HIGHEST, preferred_element_type=dtype
        )
        return product[:1]

    def as_reduction(x):
        return x.sum(axis, keepdims=True, dtype=dtype)

    if axis != 0:
        return as_reduction(x)
    return lax.platform_dependent(x, cpu=as_product, default=as_reduction)


def gather(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """All devices' rows (axis 0), in the order of the mapped axis."""
    return lax.all_gather(x, axis_name, axis=0, tiled=True)


def take_local(x: jax.Array, local: int, axis_name: AxisName) -> jax.Array:
    """This device's ``local`` rows of a gathered array: undoes `gather`."""
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis_name) * local, local, axis=0)


def split_groups(x: jax.Array, group_size: int) -> jax.Array:
    """Reshapes (rows, ...) to (groups, group_size, ...).

    Raises:
      ValueError: group_size does not divide the number of rows.
    """
    if x.shape[0] % group_size:
        raise ValueError(
            f"group_size={group_size} does not divide the batch of {x.shape[0]} examples; change "
            "group_size or the batch size, or pad the batch and give its mask"
        )
    return x.reshape(-1, group_size, *x.shape[1:])
