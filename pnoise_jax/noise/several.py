"""One injection, several, or none: what a model takes."""

from collections.abc import Sequence
from typing import Any

from pnoise_jax.noise.injection import Injection


def as_injections(injection: Injection | Sequence[Injection] | None) -> tuple[Injection, ...]:
    """What a model takes for its ``injection``, one or several or None, as a tuple.

    Raises:
      ValueError: it is something else.
    """
    if injection is None:
        return ()
    injections: tuple[Any, ...] = (
        tuple(injection) if isinstance(injection, tuple | list) else (injection,)
    )
    for each in injections:
        if not isinstance(each, Injection):
            raise ValueError(
                f"injection={each!r}: give a noise.Injection, a tuple of several, or None"
            )
    return injections


def only_injection(
    injection: Injection | Sequence[Injection] | None, what: str
) -> Injection | None:
    """The only injection of a model; None where it has none.

    Args:
      injection: the model's.
      what: what takes no more than one, as the subject of the error.

    Raises:
      ValueError: there are several.
    """
    injections = as_injections(injection)
    if len(injections) > 1:
        raise ValueError(
            f"{what} takes a model with one injection, and this model has {len(injections)}: keep "
            "one of them, or put their noises into one place by noise.Chain"
        )
    return injections[0] if injections else None
