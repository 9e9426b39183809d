"""Converts durations of a config: "10 epochs" to steps, "15 minutes" to seconds."""

import math
import re


def steps_of(duration: str, *, field: str, examples: int, batch_size: int) -> int:
    """A duration such as "10 epochs" in steps, rounded to the nearest.

    Args:
      duration: a number and a unit: steps (can be left out), epochs or examples.
      field: the field's name, for the error.
      examples: the number of examples in an epoch.
      batch_size: the number of examples in a step.

    Raises:
      ValueError: it is not such a duration.
    """
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*(steps?|epochs?|examples?)?\s*", str(duration))
    number, given_unit = match.groups() if match else ("", None)
    try:
        amount = float(number)
        if amount == math.inf:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{field}={duration!r}: give a number of steps, epochs or examples, such as "
            "'500 steps' or '10 epochs'"
        ) from None
    unit = (given_unit or "steps").removesuffix("s")
    per_unit = {"step": 1, "epoch": examples / batch_size, "example": 1 / batch_size}[unit]
    return round(amount * per_unit)


def seconds_of(duration: str, *, field: str) -> float | None:
    """A duration such as "15 minutes" in seconds; None if it is not in minutes.

    Raises:
      ValueError: the number of minutes is not above 0.
    """
    match = re.fullmatch(r"\s*(\S+)\s*minutes?\s*", str(duration))
    if match is None:
        return None
    try:
        seconds = 60 * float(match[1])
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{field}={duration!r}: give minutes above 0, such as '15 minutes'")
    return seconds
