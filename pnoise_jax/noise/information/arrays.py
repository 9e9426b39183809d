"""Checks of the measures' arguments; each error names the argument, its value and the fix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_SUM_TOLERANCE = 1e-6  # float32 probabilities of many outcomes sum to 1 within this
_ASYMMETRY = 1e-6  # of a float32 covariance, relative to the standard deviations


def real_numbers(name: str, value: Any) -> np.ndarray:
    """``value`` as float64; ValueError unless it contains at least one number, all finite reals."""
    array = _untraced(name, value)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise ValueError(f"{name} has dtype {array.dtype}: give real numbers")
    with np.errstate(over="ignore"):  # the check below rejects longer floats that overflow
        array = array.astype(np.float64)
    if not array.size:
        raise ValueError(
            f"{name} has shape {array.shape}, so it is empty: give at least one number"
        )
    if not np.isfinite(array).all():
        where = _first(~np.isfinite(array))
        place = str(list(where)) if where else ""
        raise ValueError(f"{name}{place}={array[where]}: give finite numbers")
    return array


def number_within(name: str, value: Any, low: float, high: float, why: str = "") -> float:
    """A single number; ValueError unless it is between low and high, both allowed."""
    number = real_numbers(name, value)
    if number.ndim or not low <= number <= high:
        bounds = f"of at least {low:g}" if high == np.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name}={value!r}: give one number {bounds}{why}")
    return float(number)


def probabilities(name: str, value: Any, *, axes: int | None = None) -> np.ndarray:
    """A distribution as float64 with sum 1.

    Args:
      name: the argument's name, for errors.
      value: probabilities, an array with at least one axis.
      axes: how many axes it must have; None for any number.

    Raises:
      ValueError: it has another number of axes, a negative entry, or a sum that is not 1.
    """
    p = real_numbers(name, value)
    if not p.ndim or (axes is not None and p.ndim != axes):
        right = f"{axes} axes, a row for each x and a column for each y" if axes else "an axis"
        raise ValueError(f"{name} has shape {p.shape}: give probabilities with {right}")
    if (p < 0).any():
        where = _first(p < 0)
        raise ValueError(f"{name}{list(where)}={p[where]:g}: a probability is not negative")
    with np.errstate(over="ignore"):
        total = p.sum()
    if abs(total - 1) > _SUM_TOLERANCE:
        raise ValueError(
            f"{name} sums to {total:.9g}, not 1: divide it by its sum (for float16 or bfloat16, in "
            "float32 or float64)"
        )
    return p / total


def covariance_matrix(name: str, value: Any) -> np.ndarray:
    """A symmetric matrix as float64; ValueError unless it is square, with positive variances."""
    covariance = real_numbers(name, value)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(
            f"{name} has shape {covariance.shape}: give a square matrix (n, n), [[variance]] for "
            "one variable"
        )
    variances = np.diag(covariance)
    if (variances <= 0).any():
        (i,) = _first(variances <= 0)
        raise ValueError(
            f"{name}[{i}, {i}]={variances[i]:g}: a variance is positive; leave a constant out"
        )
    scale = np.sqrt(variances)
    with np.errstate(over="ignore"):
        difference = covariance.T - covariance
    asymmetric = np.abs(difference) > _ASYMMETRY * np.outer(scale, scale)
    if asymmetric.any():
        i, j = _first(asymmetric)
        raise ValueError(
            f"{name} is not symmetric: [{i}, {j}] is {covariance[i, j]:g} and [{j}, {i}] is "
            f"{covariance[j, i]:g}; give a covariance matrix, or (C + C.T) / 2"
        )
    return covariance + difference / 2  # the sum of both may overflow


def precision(value: Any) -> float:
    """The relative rounding error of the numbers in their original dtype."""
    dtype = np.asarray(value).dtype
    return float(jnp.finfo(dtype if jnp.issubdtype(dtype, jnp.floating) else np.float64).eps)


def _untraced(name: str, value: Any) -> np.ndarray:
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        raise ValueError(
            f"{name} is traced by jax.jit, jax.grad or jax.vmap: these measures run in NumPy; call "
            "them outside, on arrays that have values"
        )
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is not an array: {error}") from error


def _first(condition: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(condition)[0])
