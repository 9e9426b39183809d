"""Schedules of a noise's strength: "linear 0 to 1 over 10 epochs"."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Literal, cast

import jax.numpy as jnp
import optax

from pnoise_jax.training.configuration.durations import steps_of

_NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
_PATTERN = re.compile(
    rf"\s*(linear|cosine)\s+({_NUMBER})\s+to\s+({_NUMBER})\s+over\s+(.+?)(?:\s+from\s+(.+?))?\s*"
)
_EXAMPLE = "'linear 0 to 1 over 10 epochs' or 'cosine 1 to 0 over 90 epochs from 10 epochs'"


@dataclasses.dataclass(frozen=True)
class StrengthSchedule:
    """The factor of a strength as a function of the step.

    Attributes:
      shape: "linear", or "cosine", which is flat at both ends.
      first: the factor before the schedule begins, at least 0.
      last: the factor after it ends, at least 0.
      over: its length, as a duration such as "10 epochs".
      begin: when it begins, likewise.
    """

    shape: Literal["linear", "cosine"]
    first: float
    last: float
    over: str
    begin: str = "0 steps"

    @classmethod
    def parse(cls, text: str, *, field: str) -> "StrengthSchedule":
        """Reads "SHAPE FIRST to LAST over DURATION", optionally followed by "from DURATION".

        Args:
          text: the schedule in a config.
          field: the field's name, for errors.

        Raises:
          ValueError: the text is not such a schedule.
        """
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{field}={text!r}: give a schedule such as {_EXAMPLE}")
        shape, first, last, over, begin = match.groups(default="0 steps")
        for duration in (over, begin):
            try:
                steps_of(duration, field=field, examples=1, batch_size=1)
            except ValueError as error:
                raise ValueError(
                    f"{field}={text!r}: {error}; give a schedule such as {_EXAMPLE}"
                ) from error
        if math.inf in (float(first), float(last)):
            raise ValueError(
                f"{field}={text!r}: give a schedule of finite factors, such as {_EXAMPLE}"
            )
        if not float(first) and not float(last):
            raise ValueError(f"{field}={text!r} is always 0: remove what it schedules")
        shape = cast('Literal["linear", "cosine"]', shape)
        return cls(shape, float(first), float(last), over, begin)

    def __str__(self) -> str:
        """The schedule as it is written in a config."""
        begin = "" if self.begin == "0 steps" else f" from {self.begin}"
        return f"{self.shape} {self.first:g} to {self.last:g} over {self.over}{begin}"

    def by_step(self, steps: Callable[[str], int]) -> optax.Schedule:
        """The factor as a function of the step.

        Args:
          steps: converts a duration to steps.
        """
        over = max(1, steps(self.over))
        share = optax.linear_schedule(0.0, 1.0, over, transition_begin=steps(self.begin))
        first, last = self.first, self.last
        if self.shape == "linear":
            return lambda step: first + (last - first) * share(step)
        return lambda step: first + (last - first) * (1 - jnp.cos(jnp.pi * share(step))) / 2
