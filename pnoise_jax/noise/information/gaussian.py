"""Entropies and mutual information of multivariate normal distributions (eq. 1-4)."""

import dataclasses
import math
from typing import Any, Self

import numpy as np

from pnoise_jax.noise.checks import is_count
from pnoise_jax.noise.information import arrays


def gaussian_entropy(covariance: Any) -> float:
    """The differential entropy ``h = 1/2 log((2 pi e)^n |C|)`` in nats (eq. 1, continuous).

    Unlike the entropy of discrete outcomes, it changes with the unit of measurement and can be
    negative.

    Args:
      covariance: C, (n, n), of n jointly normal variables.

    Raises:
      ValueError: C is not symmetric, not positive definite (singular, so that h is -inf), or
        traced.
    """
    return Normal.read("covariance", covariance).entropy()


def gaussian_conditional_entropy(covariance: Any, split: int) -> float:
    """``h(x | y) = h(x, y) - h(y)`` in nats (eq. 3, continuous).

    Args:
      covariance: of jointly normal variables, (n, n): first those of x, then those of y.
      split: how many variables x has.

    Raises:
      ValueError: as in `gaussian_entropy`, or if x or y would have no variable.
    """
    normal = Normal.read("covariance", covariance, split=split)
    return normal.entropy() - normal.entropy(slice(split, None))


def gaussian_mutual_information(covariance: Any, split: int) -> float:
    """``I(x; y) = h(x) + h(y) - h(x, y)`` in nats (eq. 2, continuous).

    It is never negative, and does not change when x or y is mapped by an invertible matrix.

    Args:
      covariance: of jointly normal variables, (n, n): first those of x, then those of y.
      split: how many variables x has.

    Raises:
      ValueError: as in `gaussian_conditional_entropy`. If the matrix is singular but its two blocks
        are not, x and y share a variable, and their mutual information is infinite.
    """
    normal = Normal.read("covariance", covariance, split=split)
    parts = normal.entropy(slice(split)) + normal.entropy(slice(split, None))
    return max(0.0, parts - normal.entropy())


@dataclasses.dataclass(frozen=True, eq=False)
class Normal:
    """A multivariate normal distribution.

    Attributes:
      name: the name of the covariance's argument, for errors.
      covariance: (n, n), symmetric, with positive variances.
      eps: relative rounding error of its entries.
    """

    name: str
    covariance: np.ndarray
    eps: float

    @classmethod
    def read(cls, name: str, covariance: Any, *, split: int | None = None) -> Self:
        """Checks a covariance; with a split, also that it leaves variables on both sides."""
        c = arrays.covariance_matrix(name, covariance)
        if split is not None and len(c) < 2:
            raise ValueError(
                f"{name} has only one variable: give the variables of x, then those of y"
            )
        if split is not None and not (is_count(split) and split < len(c)):
            raise ValueError(
                f"split={split!r}: {name} has {len(c)} variables; give the number of variables of "
                f"x, a whole number from 1 to {len(c) - 1}"
            )
        return cls(name, c, arrays.precision(covariance))

    def entropy(self, variables: slice = slice(None)) -> float:
        """The differential entropy of some variables, in nats; ValueError if it is -inf."""
        c = self.covariance[variables, variables]
        return (len(c) * (1 + math.log(2 * math.pi)) + self._log_det(c)) / 2

    def _log_det(self, c: np.ndarray) -> float:
        """Computed from the correlations: whether they are singular does not depend on units."""
        scale = np.sqrt(np.diag(c))
        with np.errstate(over="ignore"):
            correlations = c / scale[:, None] / scale
        # No correlation can exceed 1, and a matrix with infinities has no eigenvalues.
        eigenvalues = np.linalg.eigvalsh(np.clip(correlations, -2, 2))
        smallest, bound = eigenvalues[0], len(c) * self.eps * eigenvalues[-1]
        if smallest < -bound:
            raise ValueError(
                f"{self.name} is not positive definite (its correlation matrix has the eigenvalue "
                f"{smallest:.3g}): give the covariance matrix of real variables"
            )
        if smallest <= bound:
            raise ValueError(
                f"{self.name} is singular (rank {int((eigenvalues > bound).sum())} of {len(c)}): a "
                "variable is a linear function of others, so the entropy is -inf; leave it out, or "
                "add independent noise to the diagonal"
            )
        return float(np.log(eigenvalues).sum() + 2 * np.log(scale).sum())
