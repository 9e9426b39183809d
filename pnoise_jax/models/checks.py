"""What models require of their options."""

from typing import Any


def require_positive(**options: Any) -> None:
    """Raises ValueError unless each option is a whole number, or several, of at least 1."""
    for name, value in options.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(type(number) is int and number >= 1 for number in numbers):
            raise ValueError(f"{name}={value!r}: give whole numbers of at least 1")


def require_rate(**options: Any) -> None:
    """Raises ValueError unless each option is a number in [0, 1)."""
    for name, value in options.items():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"{name}={value!r}: give a number in [0, 1)")
