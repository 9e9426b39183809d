"""Quality matrices: the matrices Q of the linear transform noise ``X + QX``.

Every quality matrix here is ``Q = strength * (T - I)``, where ``T`` mixes the k rows of X: a cyclic
shift (eq. 17 of the paper), the reversed order, the shrunken sum (eq. 19), or an arbitrary matrix.
Therefore

    X + QX = (1 - strength) * X + strength * T X,

which the structured implementation computes without forming Q.

Equation numbers are those of *Explore Positive Noise in Deep Learning*.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax.noise import checks, rows


@dataclasses.dataclass(frozen=True)
class QualityMatrix(abc.ABC):
    """The base class of quality matrices. ``k`` is the number of rows in a group that is mixed."""

    if TYPE_CHECKING:  # every quality matrix defines it as a field

        @property
        def strength(self) -> float:
            """Scales Q."""
            ...

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        defined = vars(cls)
        if "mix" in defined and "transposed" not in defined:  # an inherited one does not match mix
            cls.transposed = QualityMatrix.transposed
        inherited = [name for name in ("mix", "log_abs_det") if name not in defined]
        if "mixing_matrix" in defined and inherited:
            raise TypeError(
                f"{cls.__name__} defines mixing_matrix but inherits {' and '.join(inherited)}, "
                "which belong to another matrix: define all three"
            )

    @property
    def structured(self) -> bool:
        """Whether Q has a structure that `mix` uses; if not, only the matmul can be used."""
        return True

    @abc.abstractmethod
    def mixing_matrix(self, k: int, *, mask: jax.Array | None = None) -> jax.Array:
        """``T``, float32 (k, k). Rows that ``mask`` (k,) excludes are not mixed with others."""

    @abc.abstractmethod
    def mix(self, x: jax.Array, *, axis: int, mask: jax.Array | None, axis_name) -> jax.Array:
        """``T X`` along ``axis`` of x, from T's structure; must agree with `mixing_matrix`.

        ``axis_name`` names the mapped axis over whose devices the rows are spread.
        """

    def transposed(self) -> "QualityMatrix | None":
        """The quality matrix with the transposed ``T``, which mixes gradients.

        None, the default, means that JAX differentiates `mix`.
        """
        return None

    @abc.abstractmethod
    def log_abs_det(self, k: int) -> float:
        """``log |det(I + Q)|`` in nats, in closed form; ``-inf`` if ``I + Q`` is singular."""

    def matrix(
        self,
        k: int,
        *,
        strength: jax.Array | float | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Q itself, float32 (k, k); with a ``mask`` (k,), only the rows that it keeps are mixed."""
        strength = rows.as_factor(self.strength if strength is None else strength, jnp.float32)
        return (strength * (self.mixing_matrix(k, mask=mask) - _eye(k))).astype(jnp.float32)

    def mutual_information(self, k: int) -> float:
        """``MI(T, QX) = -log |det(I + Q)|`` in nats (eq. 13); ``inf`` if ``I + Q`` is singular.

        It measures how much ``I + Q`` contracts, not what a classifier gains: for a matrix that
        scales every feature by 1/2, it is ``k log 2``. The constraints (`violations`) exclude that
        matrix, because its rows do not sum to 1, but they do not exclude contraction:
        ``Optimal(strength)`` meets them all up to a strength of ``(k + 1) / k``, towards which this
        value grows without limit. See docs/theory.md.

        Raises:
          ValueError: k is not a whole number of at least 1.
        """
        checks.require_count("k", k)
        return 0.0 - self.log_abs_det(k)  # a bare minus sign would return -0.0 for no noise

    def violations(self, k: int) -> tuple[str, ...]:
        """The constraints of eq. 14 that ``I + Q`` breaks for k rows, in words; empty if none.

        Raises:
          ValueError: k is not a whole number of at least 1.
        """
        checks.require_count("k", k)
        return _violations(np.eye(k) + np.asarray(self.matrix(k)), self.log_abs_det(k))


@dataclasses.dataclass(frozen=True)
class CyclicShift(QualityMatrix):
    """``Q = -strength I + strength f(I)`` (eq. 17); f moves each row to the next, cyclically.

    Example i becomes ``(1 - strength) x[i] + strength x[i - shift]``.

    Attributes:
      strength: the paper's alpha. Above 0.5 a neighbour outweighs the example itself (eq. 14); at
        0.5 with even k, ``I + Q`` is singular.
      shift: by how many rows f moves each row; -1 is the direction of the published code.
    """

    strength: float
    shift: int = 1

    def __post_init__(self):
        checks.require_finite("strength", self.strength)
        if type(self.shift) is not int or self.shift == 0:
            raise ValueError(f"shift={self.shift!r}: give a whole number of rows other than 0")

    def mixing_matrix(self, k: int, *, mask: jax.Array | None = None) -> jax.Array:
        if mask is None:
            return jnp.roll(_eye(k), self.shift, axis=0)
        return jax.nn.one_hot(rows.preceding(mask, self.shift), k, dtype=jnp.float32)

    def mix(self, x: jax.Array, *, axis: int, mask: jax.Array | None, axis_name) -> jax.Array:
        if mask is None:
            return rows.shift(x, self.shift, axis=axis, axis_name=axis_name)
        find = functools.partial(rows.preceding, shift=self.shift)
        return _take_rows(x, mask, find, axis=axis, axis_name=axis_name)

    def transposed(self) -> "CyclicShift":
        return dataclasses.replace(self, shift=-self.shift)

    def log_abs_det(self, k: int) -> float:
        cycles = math.gcd(self.shift, k)
        return cycles * _log_abs_power_difference(1 - self.strength, -self.strength, k // cycles)


@dataclasses.dataclass(frozen=True)
class Reverse(QualityMatrix):
    """``Q = strength (R - I)``, where R reverses the order of the rows: the last comes first.

    Example i becomes ``(1 - strength) x[i] + strength x[k - 1 - i]``; with odd k, the middle
    example is unchanged. SSRT (https://arxiv.org/abs/2204.07683) perturbs a batch in this way.

    Attributes:
      strength: the share of the other example. Above 0.5 it outweighs the example itself (eq. 14);
        at 0.5 both become equal, so ``I + Q`` is singular.
    """

    strength: float

    def __post_init__(self):
        checks.require_finite("strength", self.strength)

    def mixing_matrix(self, k: int, *, mask: jax.Array | None = None) -> jax.Array:
        if mask is None:
            return jnp.flip(_eye(k), 0)
        return jax.nn.one_hot(rows.mirrored(mask), k, dtype=jnp.float32)

    def mix(self, x: jax.Array, *, axis: int, mask: jax.Array | None, axis_name) -> jax.Array:
        if mask is None:
            return rows.flip(x, axis=axis, axis_name=axis_name)
        return _take_rows(x, mask, rows.mirrored, axis=axis, axis_name=axis_name)

    def transposed(self) -> "Reverse":
        return self

    def log_abs_det(self, k: int) -> float:
        eigenvalue = 1 - 2 * self.strength  # once for each pair of rows; the others are 1
        if k == 1:
            return 0.0
        return (k // 2) * math.log(abs(eigenvalue)) if eigenvalue else -math.inf


@dataclasses.dataclass(frozen=True)
class Optimal(QualityMatrix):
    """The optimal quality matrix (eq. 19): ``Q = diag(1/(k+1) - 1) + 1/(k+1) 1_{k x k}``.

    Example i becomes ``(x[i] + sum_j x[j]) / (k + 1)``: nearly the mean of its group.

    Attributes:
      strength: scales Q; 1 is the paper's matrix, 0 no noise.
    """

    strength: float = 1.0

    def __post_init__(self):
        checks.require_finite("strength", self.strength)

    def mixing_matrix(self, k: int, *, mask: jax.Array | None = None) -> jax.Array:
        kept = jnp.ones(k, jnp.float32) if mask is None else mask.astype(jnp.float32)
        mixed = (jnp.diag(kept) + jnp.outer(kept, kept)) / (kept.sum() + 1)
        return mixed + jnp.diag(1 - kept)

    def mix(self, x: jax.Array, *, axis: int, mask: jax.Array | None, axis_name) -> jax.Array:
        total, count = rows.total(x, axis=axis, mask=mask, axis_name=axis_name)
        share = total / (count + 1)
        return x.astype(share.dtype) / (count + 1) + share

    def transposed(self) -> "Optimal":
        return self

    def log_abs_det(self, k: int) -> float:
        eigenvalue = 1 - self.strength * k / (k + 1)  # k - 1 times; the last one is 1
        if k == 1:
            return 0.0
        return (k - 1) * math.log(abs(eigenvalue)) if eigenvalue else -math.inf


@dataclasses.dataclass(frozen=True, eq=False)
class Dense(QualityMatrix):
    """An arbitrary Q, for one fixed k.

    Attributes:
      values: Q, (k, k); kept as a read-only array.
      strength: scales Q.
    """

    values: np.ndarray
    strength: float = 1.0

    def __post_init__(self):
        checks.require_finite("strength", self.strength)
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
            raise ValueError(f"Dense: Q must be square, (k, k); got shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("Dense: Q has entries that are not finite")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @property
    def structured(self) -> bool:
        return False

    def mixing_matrix(self, k: int, *, mask: jax.Array | None = None) -> jax.Array:
        self._require_size(k)
        kept = jnp.ones(k, jnp.float32) if mask is None else mask.astype(jnp.float32)
        return _eye(k) + jnp.outer(kept, kept) * self.values.astype(np.float32)

    def mix(self, x: jax.Array, *, axis: int, mask: jax.Array | None, axis_name) -> jax.Array:
        raise ValueError("Dense has no structure to use: implementation must be 'matmul'")

    def log_abs_det(self, k: int) -> float:
        self._require_size(k)
        i_plus_q = np.eye(k) + self.strength * self.values
        if np.linalg.matrix_rank(_equilibrated(i_plus_q)) < k:
            return -math.inf
        return float(np.linalg.slogdet(i_plus_q)[1])

    def _require_size(self, k: int) -> None:
        if k != len(self.values):
            raise ValueError(
                f"Dense: Q is for k={len(self.values)} rows, but {k} rows are mixed; "
                f"set group_size={len(self.values)} or give a matrix for {k} rows"
            )

    @functools.cached_property
    def _key(self) -> tuple:
        return (self.values.shape, self.values.tobytes(), self.strength)

    def __eq__(self, other) -> bool:
        return isinstance(other, Dense) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _eye(k: int) -> jax.Array:
    return jnp.eye(k, dtype=jnp.float32)  # the default dtype depends on JAX's settings


def _take_rows(
    x: jax.Array, mask: jax.Array, find: Callable[[jax.Array], jax.Array], *, axis: int, axis_name
) -> jax.Array:
    """Takes, for each row of x, the row whose index ``find`` returns for the mask."""
    if axis_name is None:
        return jnp.take_along_axis(x, rows.expand(find(mask), x), axis=axis)
    # The row may be on any device.
    local, mask, x = x.shape[0], rows.gather(mask, axis_name), rows.gather(x, axis_name)
    mixed = jnp.take_along_axis(x, rows.expand(find(mask), x), axis=axis)
    return rows.take_local(mixed, local, axis_name)


def _equilibrated(matrix: np.ndarray) -> np.ndarray:
    """The matrix with its rows, then its columns, divided by their largest entries.

    The rank stays the same. Without this, the rank of diag(1e20, 1) in floating point would be 1.
    """
    for axis in (1, 0):
        largest = np.abs(matrix).max(axis, keepdims=True)
        matrix = matrix / np.where(largest == 0, 1, largest)
    return matrix


def _log_abs_power_difference(a: float, b: float, n: int) -> float:
    """``log |a^n - b^n|`` without under- or overflow."""
    large, small = (a, b) if abs(a) >= abs(b) else (b, a)
    if large == 0:
        return -math.inf
    remainder = 1 - (small / large) ** n
    return n * math.log(abs(large)) + math.log(abs(remainder)) if remainder else -math.inf


def _violations(mixed: np.ndarray, log_abs_det: float) -> tuple[str, ...]:
    """Checks ``mixed = I + Q`` (k, k) against eq. 14."""
    violations = []
    if log_abs_det == -math.inf:
        violations.append("I+Q is singular: rank(I+Q) < k, so it is not row-equivalent to I")
    off_diagonal = np.where(np.eye(len(mixed), dtype=bool), -np.inf, mixed)
    largest = off_diagonal.max(axis=1)
    dominated = np.diag(mixed) < largest - 1e-6
    if dominated.any():
        i = int(dominated.argmax())
        violations.append(
            f"a neighbour dominates: [I+Q]_ii = {mixed[i, i]:.4g} < [I+Q]_ij = {largest[i]:.4g} "
            f"in row {i}, so the example is more like another than like itself"
        )
    norms = np.abs(mixed).sum(axis=1)
    off = np.abs(norms - 1) > 1e-5
    if off.any():
        i = int(off.argmax())
        violations.append(f"the L1 norm of row {i} of I+Q is {norms[i]:.4g}, not 1")
    return tuple(violations)
