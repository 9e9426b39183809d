"""Kinds of config fields: which values each allows, and what changing a value affects."""

import dataclasses
import enum
import math
import re
from typing import Any, ClassVar

from ml_collections import config_dict

from pnoise_jax.data.image import require_statistics
from pnoise_jax.runs import find_writer
from pnoise_jax.training.configuration.durations import seconds_of, steps_of


class Affects(enum.Enum):
    """What changing a field's value affects, and therefore when it may change."""

    WEIGHTS = "the weights: it may not change when a run is resumed"
    RESULTS = "results, not weights: it may change when a run is resumed, not within a sweep"
    NOTHING = "no result: it may change when a run or a sweep is resumed"
    HOST = "no result: it may change when a run is resumed, and differ between hosts"


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a config.

    Attributes:
      default: its value if a config does not set it; None leaves it unset.
      meaning: what the field means, for the documentation.
      affects: what changing its value affects.
    """

    default: Any
    meaning: str
    affects: Affects = dataclasses.field(default=Affects.WEIGHTS, kw_only=True)

    kind = str  # the type of its values
    expected: ClassVar[str] = "a string"  # the allowed values, in words; a property in some kinds

    def placeholder(self) -> Any:
        """The field's initial value in a config: its default, or a placeholder of its type."""
        return config_dict.placeholder(self.kind) if self.default is None else self.default

    def validate(self, name: str, value: Any) -> None:
        """Raises ValueError, naming the field, unless the value is allowed."""
        if value is None:
            if self.default is not None:
                raise ValueError(f"{name}=None: give a value; the default is {self.default!r}")
        elif not self._allows(name, value):
            raise ValueError(f"{name}={value!r}: give {self.expected}")

    def _allows(self, name: str, value: Any) -> bool:
        return isinstance(value, str)


@dataclasses.dataclass(frozen=True)
class Text(Field):
    """Any string."""


@dataclasses.dataclass(frozen=True)
class Switch(Field):
    """True or False."""

    kind = bool
    expected = "True or False"

    def _allows(self, name: str, value: Any) -> bool:
        return isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Whole(Field):
    """A whole number from `low` to `high`, inclusive."""

    low: int = dataclasses.field(default=1, kw_only=True)
    high: float = dataclasses.field(default=math.inf, kw_only=True)

    kind = int

    @property
    def expected(self) -> str:
        if self.high == math.inf:
            return f"a whole number of at least {self.low}"
        return f"a whole number from {self.low} to {self.high}"

    def _allows(self, name: str, value: Any) -> bool:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Number(Field):
    """A number in an interval, written like "[0, 1)"; inf as an end is open."""

    interval: str = dataclasses.field(default="[0, inf)", kw_only=True)

    kind = float

    @property
    def expected(self) -> str:
        return f"a number in {self.interval}"

    def _allows(self, name: str, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = map(float, self.interval[1:-1].split(","))
        above = value >= low if self.interval[0] == "[" else value > low
        return above and (value <= high if self.interval[-1] == "]" else value < high)


@dataclasses.dataclass(frozen=True)
class Choice(Field):
    """One of several strings."""

    choices: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.choices)}"

    def _allows(self, name: str, value: Any) -> bool:
        return value in self.choices


@dataclasses.dataclass(frozen=True)
class Duration(Field):
    """A string such as "10 epochs"."""

    expected = "a number of steps, epochs or examples"

    def _allows(self, name: str, value: Any) -> bool:
        steps_of(value, field=name, examples=1, batch_size=1)  # raises
        return True


@dataclasses.dataclass(frozen=True)
class Minutes(Field):
    """A string such as "15 minutes"; with `or_steps` also steps, epochs or examples."""

    or_steps: bool = dataclasses.field(default=False, kw_only=True)

    @property
    def expected(self) -> str:
        return "steps, epochs, examples or minutes" if self.or_steps else "minutes"

    def _allows(self, name: str, value: Any) -> bool:
        if seconds_of(value, field=name) is not None:
            return True
        if not self.or_steps:
            raise ValueError(
                f"{name}={value!r}: give minutes, such as '15 minutes'; set a duration in steps, "
                "epochs or examples in checkpoint.every"
            )
        try:
            steps_of(value, field=name, examples=1, batch_size=1)
        except ValueError as error:
            raise ValueError(f"{error}; or of minutes, such as '5 minutes'") from None
        return True


@dataclasses.dataclass(frozen=True)
class Place(Field):
    """The path of a file or directory."""

    expected = "a path"

    def _allows(self, name: str, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        if value.strip() and value not in ("None", "none") and "\0" not in value:
            return True
        quoted = f" (./{value} if that is its name)" if value in ("None", "none") else ""
        raise ValueError(
            f"{name}={value!r} is not a path: give one{quoted}, or None to leave the field unset"
        )


@dataclasses.dataclass(frozen=True)
class Patterns(Field):
    """Any number of regular expressions."""

    kind = tuple
    expected = "patterns of names, such as ('patch_embed/.*',), or () for none"

    def _allows(self, name: str, value: Any) -> bool:
        if not isinstance(value, tuple | list):
            return False
        for pattern in value:
            if not isinstance(pattern, str):
                return False
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"{name}={value!r}: {pattern!r} is not a valid regular expression ({error}); "
                    "give one such as 'patch_embed/.*'"
                ) from error
        return True


@dataclasses.dataclass(frozen=True)
class Rates(Field):
    """Any number of strings "PATTERN=FACTOR"."""

    kind = tuple
    expected = "strings PATTERN=FACTOR, such as ('task/.*=10', '.*/bias=2'), or () for none"

    def _allows(self, name: str, value: Any) -> bool:
        if not isinstance(value, tuple | list) or not all(isinstance(v, str) for v in value):
            return False
        for text in value:
            try:
                parse_rate(text)
            except ValueError as error:
                raise ValueError(f"{name}={value!r}: {error}") from error
        return True


def parse_rate(text: str) -> tuple[str, float]:
    """The pattern and the factor of a string "PATTERN=FACTOR".

    Raises:
      ValueError: the string has no "=", the pattern is not a valid regular expression, or the
        factor is not a positive number.
    """
    pattern, equals, factor = text.rpartition("=")
    if not equals or not pattern:
        raise ValueError(f"{text!r} is not PATTERN=FACTOR; give one such as 'head/.*=10'")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{pattern!r} is not a valid regular expression ({error}); give one such as 'head/.*'"
        ) from error
    try:
        number = float(factor)
    except ValueError as error:
        raise ValueError(f"{text!r}: the factor {factor!r} is not a number") from error
    if not 0 < number < math.inf:
        raise ValueError(
            f"{text!r}: give a factor above 0 and below inf; to keep parameters unchanged, use "
            "optimizer.freeze"
        )
    return pattern, number


@dataclasses.dataclass(frozen=True)
class WriterNames(Field):
    """Any number of names of writers."""

    kind = tuple
    expected = "names of writers, such as ('tensorboard',), or () for none"

    def _allows(self, name: str, value: Any) -> bool:
        if not isinstance(value, tuple | list) or not all(isinstance(v, str) for v in value):
            return False
        for each in value:
            find_writer(each)  # raises
        return True


@dataclasses.dataclass(frozen=True)
class Window(Field):
    """A string "START:STEPS", both whole numbers."""

    expected = "START:STEPS, such as '10:5' for the 5 steps that follow step 10"

    def _allows(self, name: str, value: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(r"\d{1,9}:[1-9]\d{0,8}", value) is not None


@dataclasses.dataclass(frozen=True)
class PerChannel(Field):
    """One number per channel, or one for all channels."""

    kind = tuple
    expected = "one number per channel, or one for all channels"

    def _allows(self, name: str, value: Any) -> bool:
        require_statistics(**{name.rpartition(".")[2]: value})  # raises
        return True
