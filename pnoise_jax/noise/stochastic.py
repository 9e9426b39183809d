"""Random noises, drawn separately for each example: Gaussian and salt-and-pepper.

Example i draws from ``fold_in(key, index[i])``; the default index is its place in the global batch.
Its noise therefore does not depend on the number of examples or devices, nor on padding. If the
index is the example's number in the data set, the noise does not depend on the order either.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pnoise_jax.noise import checks, rows
from pnoise_jax.noise.base import Mixes, Noise

Extremes = Literal["image", "batch"]


@dataclasses.dataclass(frozen=True)
class Gaussian(Noise):
    """``X + strength * e``, ``e ~ N(mean, std^2)`` for each element (eq. 16: mean 0, std 1).

    Attributes:
      mean: mean of e, in the units of X.
      std: standard deviation of e, in the units of X.
      strength: scales e.
      axis_name: the mapped axis over which the batch is spread, inside ``shard_map`` and ``pmap``;
        the key must be the same on all devices.
    """

    mean: float = 0.0
    std: float = 1.0
    strength: float = 1.0
    axis_name: rows.AxisName | None = None

    def __post_init__(self):
        checks.require_finite("mean", self.mean)
        checks.require_finite("std", self.std)
        checks.require_finite("strength", self.strength)
        if self.std < 0:
            raise ValueError(f"std={self.std!r}: a standard deviation is at least 0")

    @property
    def is_off(self) -> bool:
        """Whether the noise changes nothing: its strength is 0, or both mean and std are."""
        return self.strength == 0 or self.mean == self.std == 0

    def noisy(self, key, x, *, mask, strength, index) -> jax.Array:
        """Adds the noise to x."""
        del mask
        normal = draw_per_example(jax.random.normal, key, x, index, axis_name=self.axis_name)
        e = float(self.mean) + float(self.std) * normal
        return x.astype(e.dtype) + strength * e


@dataclasses.dataclass(frozen=True)
class SaltAndPepper(Noise):
    """Replaces elements by the extremes of the representation (eq. 18).

    Each element draws ``p ~ U(0, 1)`` and becomes ``max(X)`` if ``p < probability / 2``, ``min(X)``
    if ``p > 1 - probability / 2``; otherwise it is unchanged. A strength given at call time
    replaces the probability; a traced one is clipped to [0, 1].

    Attributes:
      probability: the paper's alpha, in [0, 1].
      extremes: which maximum and minimum are used: "image", those of each example's own
        representation (the paper's text); or "batch", those of all examples (the published code),
        which makes examples depend on one another. As in that code, gradients treat the extremes
        of the batch as constants.
      group_size: with extremes="batch", how many examples share extremes; None is the global batch.
      axis_name: the mapped axis over which the batch is spread, inside ``shard_map`` and ``pmap``;
        the key must be the same on all devices.
    """

    probability: float
    extremes: Extremes = "image"
    group_size: int | None = None
    axis_name: rows.AxisName | None = None

    def __post_init__(self):
        _require_probability("probability", self.probability)
        checks.require_one_of("extremes", self.extremes, get_args(Extremes))
        checks.require_group_size(self.group_size)

    @property
    def mixes(self) -> Mixes:
        """ "batch" if all examples share the extremes, else None."""
        return "batch" if self.extremes == "batch" else None

    @property
    def strength(self) -> float:
        """The probability, which a strength given at call time replaces."""
        return self.probability

    def with_strength(self, strength: float) -> "SaltAndPepper":
        """The same noise with another probability."""
        return dataclasses.replace(self, probability=strength)

    def require_strength(self, strength: float) -> None:
        """Raises ValueError unless the strength is a probability."""
        _require_probability("strength", strength)

    def noisy(self, key, x, *, mask, strength, index) -> jax.Array:
        """Replaces elements of x; ``strength`` is the probability."""
        if not isinstance(strength, int | float):  # the range of a number was checked already
            strength = jnp.clip(strength, 0, 1)
        uniform = draw_per_example(jax.random.uniform, key, x, index, axis_name=self.axis_name)
        lowest, highest = self._extremes(x, mask)
        noisy = jnp.where(uniform < strength / 2, highest, x)
        return jnp.where(uniform > 1 - strength / 2, lowest, noisy)

    def _extremes(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Minimum and maximum, broadcastable to x."""
        inner = tuple(range(1, x.ndim))
        lowest, highest = x.min(inner, keepdims=True), x.max(inner, keepdims=True)
        if self.extremes == "image":
            return lowest, highest
        lowest, highest = lax.stop_gradient((lowest, highest))
        if mask is not None:
            kept = rows.expand(mask, x)
            lowest = jnp.where(kept, lowest, jnp.inf)
            highest = jnp.where(kept, highest, -jnp.inf)
        return self._over_group(lowest, jnp.min), self._over_group(highest, jnp.max)

    def _over_group(self, extreme: jax.Array, reduce: Callable) -> jax.Array:
        """``reduce`` over each group of the batch; extreme: (batch, 1, ...)."""
        local, axis_name = extreme.shape[0], self.axis_name
        if axis_name is not None:
            extreme = rows.gather(extreme, axis_name)
        elif self.group_size is None:
            checks.require_whole_batch(extreme)
        size = self.group_size or extreme.shape[0]
        if size == 0:
            return extreme
        groups = rows.split_groups(extreme, size)
        shared = jnp.broadcast_to(reduce(groups, axis=1, keepdims=True), groups.shape)
        shared = shared.reshape(extreme.shape)
        return shared if axis_name is None else rows.take_local(shared, local, axis_name)


def _require_probability(field: str, value: float) -> None:
    checks.require_finite(field, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{field}={value!r}: give a number in [0, 1], the probability")


def draw_per_example(
    draw: Callable,
    key: jax.Array | None,
    x: jax.Array,
    index: jax.Array | None,
    *,
    axis_name: rows.AxisName | None = None,
) -> jax.Array:
    """Draws random numbers in the shape of x, in at least float32, with a separate key per example.

    The numbers do not depend on how many examples or devices there are.

    Args:
      draw: a function of (key, shape, dtype), such as ``jax.random.normal``.
      key: the key of the whole batch.
      x: (batch, ...).
      index: (batch,) int32, the number folded into the key for each example; None is its place in
        the batch.
      axis_name: the mapped axis over which the batch is spread, if there is one.

    Raises:
      ValueError: the key is not exactly one key; or, inside ``shard_map``, examples that are spread
        over devices would all get the noise of the first device's.
    """
    key = checks.require_key(key)
    dtype = np.promote_types(x.dtype, np.float32)
    if index is None:
        if axis_name is None:
            checks.require_key_of_device(key, x)
        first = 0 if axis_name is None else lax.axis_index(axis_name) * x.shape[0]
        index = first + jnp.arange(x.shape[0], dtype=jnp.int32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    # By default, JAX lets devices share the numbers of one key, at the price of computing twice as
    # many. Here each device has its own examples, and so its own keys, and need not pay for that.
    with jax.threefry_partitionable(False):
        return jax.vmap(lambda key: draw(key, x.shape[1:], dtype))(keys)
