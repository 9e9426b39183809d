"""The linear transform noise ``X + QX`` (eq. 12), which mixes examples, tokens or views."""

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pnoise_jax.noise import checks, rows
from pnoise_jax.noise.base import Mixes, Noise
from pnoise_jax.noise.quality import QualityMatrix

Axis = Literal["batch", "tokens", "views"]
Implementation = Literal["structured", "matmul"]


@dataclasses.dataclass(frozen=True)
class LinearTransform(Noise):
    """``X + QX``, where Q mixes k rows of X.

    It draws no random numbers, so the key can be None. For axis="tokens", x is (batch, tokens...,
    features). Sums are computed in at least float32. With a mask, k is the number of real examples
    in a group. The noise is differentiable in reverse mode; with the matmul, in forward mode too.

    Attributes:
      quality: Q: `CyclicShift`, `Reverse`, `Optimal` or `Dense`.
      implementation: "matmul", the paper's formula as a jitted matmul with I + Q, the reference for
        any Q; or "structured", which computes the same from Q's structure and communicates one row
        if the rows are spread over devices (`Reverse`: each device's rows, to one other device).
        None selects "structured" if Q has structure.
      axis: which rows Q mixes. "batch": the examples (the paper). "tokens": the tokens, or pixels,
        inside one image. "views": several views of one image, which are adjacent along the batch
        axis.
      group_size: k for "batch" and "views": rows are mixed within consecutive groups of this size.
        None is the global batch, over all devices; "views" needs the number of views of an image.
      axis_name: the mapped axis (or axes) over which the batch is spread, inside ``shard_map`` and
        ``pmap``. Leave it None under ``jit``, where arrays are global.
    """

    quality: QualityMatrix
    implementation: Implementation | None = None
    axis: Axis = "batch"
    group_size: int | None = None
    axis_name: rows.AxisName | None = None

    draws = False

    def __post_init__(self):
        if not isinstance(self.quality, QualityMatrix):
            raise ValueError(
                f"quality={self.quality!r}: give CyclicShift(strength), Reverse(strength), "
                "Optimal() or Dense(matrix)"
            )
        if self.implementation is None:
            chosen = "structured" if self.quality.structured else "matmul"
            object.__setattr__(self, "implementation", chosen)
        checks.require_one_of("implementation", self.implementation, get_args(Implementation))
        checks.require_one_of("axis", self.axis, get_args(Axis))
        if self.implementation == "structured" and not self.quality.structured:
            raise ValueError(
                f"implementation='structured': {type(self.quality).__name__} has no structure to "
                "use; set implementation='matmul'"
            )
        self._check_group_size()

    def _check_group_size(self):
        checks.require_group_size(self.group_size)
        if self.group_size is None and self.axis == "views":
            raise ValueError(
                "axis='views' mixes the views of one image: set group_size to the number of "
                "views of each image (they must be adjacent along the batch axis)"
            )
        if self.group_size is not None and self.axis == "tokens":
            raise ValueError(
                f"group_size={self.group_size}: axis='tokens' always mixes all tokens of an image; "
                "leave group_size out, or set axis='batch'"
            )

    @property
    def mixes(self) -> Mixes:
        """ "batch" or "views"; None for "tokens", which are mixed only within an image."""
        return None if self.axis == "tokens" else self.axis

    @property
    def strength(self) -> float:
        """The strength of the quality matrix."""
        return self.quality.strength

    def with_strength(self, strength: float) -> "LinearTransform":
        """The same noise with another strength of its quality matrix."""
        quality = dataclasses.replace(self.quality, strength=strength)
        return dataclasses.replace(self, quality=quality)

    def noisy(self, key, x, *, mask, strength, index) -> jax.Array:
        """Adds ``QX`` to X; ``strength`` replaces the quality matrix's own."""
        del key, index
        if self.axis == "tokens":
            return self._mix_tokens(x, strength)
        if self.axis_name is None:
            if self.group_size is None:
                checks.require_whole_batch(x)
            return self._mix_groups(x, mask, strength)
        return self._mix_mapped(x, mask, strength, self.axis_name)

    def _mix_tokens(self, x: jax.Array, strength) -> jax.Array:
        if x.ndim < 3:
            raise ValueError(
                f"axis='tokens' needs x of shape (batch, tokens..., features); got {x.shape}"
            )
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        return self._mix(flat, None, strength, axis=1).reshape(x.shape)

    def _mix_groups(self, x: jax.Array, mask: jax.Array | None, strength) -> jax.Array:
        """Mixes within groups; x contains whole groups only."""
        size = self.group_size
        if size is None or size == x.shape[0]:
            return self._mix(x, mask, strength, axis=0)
        mask = None if mask is None else rows.split_groups(mask, size)
        return self._mix(rows.split_groups(x, size), mask, strength, axis=1).reshape(x.shape)

    def _mix_mapped(
        self, x: jax.Array, mask: jax.Array | None, strength, axis_name: rows.AxisName
    ) -> jax.Array:
        """Mixes inside shard_map or pmap, where x is this device's rows of the batch."""
        local = x.shape[0]
        if self.group_size is not None and local % self.group_size == 0:
            return self._mix_groups(x, mask, strength)
        whole_batch = self.group_size in (None, local * lax.axis_size(axis_name))
        if self.implementation == "structured" and whole_batch:
            return self._mix(x, mask, strength, axis=0, axis_name=axis_name)
        mask = None if mask is None else rows.gather(mask, axis_name)
        noisy = self._mix_groups(rows.gather(x, axis_name), mask, strength)
        return rows.take_local(noisy, local, axis_name)

    def _mix(self, x, mask, strength, *, axis: int, axis_name=None) -> jax.Array:
        """``(1 - strength) X + strength T X`` along ``axis``, 0 or 1; float32 inside."""
        if self.implementation == "matmul":
            return self._multiply(x, mask, strength, axis=axis)
        fixed, traced = strength, None
        if not isinstance(strength, int | float):
            fixed, traced = traced, strength
        mix = _mix_rows if self.quality.transposed() is None else _mix_both_ways
        return mix(self.quality, axis, axis_name, fixed, x, mask, traced)

    def _multiply(self, x, mask, strength, *, axis: int) -> jax.Array:
        """``(I + Q) X`` along ``axis``, 0 or 1."""
        k = x.shape[axis]
        if mask is not None:  # masked rows have weight 0, but 0 times NaN is NaN
            x = jnp.where(rows.expand(mask, x), x, 0)

        def i_plus_q(mask):
            return jnp.eye(k, dtype=jnp.float32) + self.quality.matrix(
                k, strength=strength, mask=mask
            )

        if axis == 0:
            return _matmul(i_plus_q(mask), x)
        if mask is None:
            return jax.vmap(_matmul, in_axes=(None, 0))(i_plus_q(None), x)
        return jax.vmap(_matmul)(jax.vmap(i_plus_q)(mask), x)


def _mix_rows(
    quality: QualityMatrix, axis: int, axis_name, fixed, x: jax.Array, mask, traced
) -> jax.Array:
    """``(1 - strength) X + strength T X``, of the strength ``fixed`` or, if None, ``traced``."""
    strength = traced if fixed is None else fixed
    compute = np.promote_types(x.dtype, jnp.float32)
    mixed = quality.mix(x, axis=axis, mask=mask, axis_name=axis_name).astype(compute)
    if fixed == 1:
        return mixed.astype(x.dtype)
    return ((1 - strength) * x.astype(compute) + strength * mixed).astype(x.dtype)


# The gradient is the same function with the transpose of T: as fast, and also rounded only once.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _mix_both_ways(
    quality: QualityMatrix, axis: int, axis_name, fixed, x: jax.Array, mask, traced
) -> jax.Array:
    return _mix_rows(quality, axis, axis_name, fixed, x, mask, traced)


def _mix_forward(quality: QualityMatrix, axis: int, axis_name, fixed, x, mask, traced):
    mixed = _mix_rows(quality, axis, axis_name, fixed, x, mask, traced)
    return mixed, (None if traced is None else x, mask, traced)


def _mix_backward(quality: QualityMatrix, axis: int, axis_name, fixed, kept, g):
    x, mask, traced = kept
    transposed = quality.transposed()
    x_grad: Any = _mix_both_ways(transposed, axis, axis_name, fixed, g, mask, traced)
    if mask is not None:  # masked rows contribute nothing
        x_grad = jnp.where(rows.expand(mask, g), x_grad, 0)
    if traced is None:
        return x_grad, None, None
    mix = functools.partial(_mix_rows, quality, axis, axis_name, fixed, x, mask)
    return x_grad, None, jax.vjp(mix, traced)[1](g)[0]


_mix_both_ways.defvjp(_mix_forward, _mix_backward)


@jax.jit
def _matmul(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """``matrix`` (k, k) times x (k, ...), accumulated in at least float32."""
    product = jnp.tensordot(
        matrix.astype(x.dtype),
        x,
        axes=1,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=np.promote_types(x.dtype, jnp.float32),
    )
    return product.astype(x.dtype)
