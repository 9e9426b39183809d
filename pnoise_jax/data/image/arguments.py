"""Checks of arguments, and a fast uniform draw, shared by the transforms."""

import math
import numbers
from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from pnoise_jax.registry import did_you_mean


def draw(generator: np.random.Generator, low: float, high: float) -> float:
    """A number drawn uniformly from [low, high); ten times faster than `generator.uniform`."""
    return low + (high - low) * generator.random()


def require_number(
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    whole: bool = False,
) -> None:
    """Raises ValueError unless value is a finite number in the range."""
    kind = int if whole else (int, float)
    valid = isinstance(value, kind) and _is_finite(value)
    valid = valid and (at_least is None or value >= at_least)
    valid = valid and (above is None or value > above)
    valid = valid and (at_most is None or value <= at_most)
    if not valid:
        bounds = {"of at least": at_least, "above": above, "of at most": at_most}
        wanted = " and ".join(
            f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None
        )
        raise ValueError(f"{name}={value!r}: give a {'whole ' * whole}number {wanted}")


def require_interval(
    name: str, value: Any, *, above: float | None = None, at_most: float | None = None
) -> None:
    """Raises ValueError unless value is a pair of numbers in the range, in ascending order."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name}={value!r}: give two numbers, such as {name}=(0.5, 1)")
    for number in value:
        require_number(name, number, above=above, at_most=at_most)
    if value[0] > value[1]:
        raise ValueError(f"{name}={value!r}: give the lower number first")


def require_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises ValueError unless value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown{did_you_mean(value, choices)}")


_LEAST_STD = 0.0039  # about one level of a pixel; 1/255 undoes the scaling to [0, 1]


def require_statistics(
    *, prefix: str = "data.", mean: Iterable[float] = (0,), std: Iterable[float] = (1,)
) -> None:
    """Raises ValueError unless both are statistics of pixels in [0, 1], one number per channel.

    Args:
      prefix: the prefix of their names in the error message.
      mean: numbers in [0, 1].
      std: numbers from 0.0039 to 1.
    """
    for name, values, least in (("mean", mean, 0.0), ("std", std, _LEAST_STD)):
        field = f"{prefix}{name}"
        is_row = isinstance(values, Iterable) and not isinstance(values, str | bytes)
        numbers_given = list(values) if is_row else []
        if not numbers_given or not all(map(_is_finite, numbers_given)):
            raise ValueError(f"{field}={values!r}: give one finite number per channel")
        if all(least <= value <= 1 for value in numbers_given):
            continue
        bounds = (
            f"{field}={values!r}: give statistics of pixels in [0, 1], so from {least:.2g} to 1"
        )
        # A mixture of values up to 1 and above fits neither scale.
        if max(numbers_given) <= 1 or not all(
            value == least == 0 or 1 < value <= 255 for value in numbers_given
        ):
            raise ValueError(bounds)
        divided = tuple(float(f"{value / 255:.4g}") for value in numbers_given)
        raise ValueError(
            f"{bounds}; these look like statistics of pixels from 0 to 255. Divided by 255 they "
            f"are {field}={divided}"
        )


def _is_finite(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        return False
    # Not isfinite, which fails for integers of 400 digits. In typeshed, Real has no ordering.
    return abs(cast("float", value)) < math.inf
