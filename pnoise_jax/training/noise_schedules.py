"""Schedules of the injections' strengths, from a config's noise section to the step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from pnoise_jax import noise
from pnoise_jax.training.strength_schedule import StrengthSchedule


def parse_noise_schedules(
    section: Mapping[str, Any], injections: Sequence[noise.Injection]
) -> tuple[StrengthSchedule | None, ...]:
    """The schedule of each injection; None where its strength is constant.

    Args:
      section: the config's noise section.
      injections: what it describes.

    Raises:
      ValueError: one is not a schedule, its noise is off in training, or the noise cannot have a
        strength that the schedule asks for, such as a probability above 1.
    """
    return tuple(_parse(section, each) for each in injections)


def _parse(section: Mapping[str, Any], injection: noise.Injection) -> StrengthSchedule | None:
    name = injection.section
    own = section if name == "noise" else section["others"][name.removeprefix("noise.others.")]
    text, field = own.get("schedule"), f"{name}.schedule"
    if text is None:
        return None
    schedule = StrengthSchedule.parse(text, field=field)
    if not injection.train:
        raise ValueError(
            f"{field}={text!r} with {name}.train=False: it schedules the noise in training, which "
            f"is off; set {name}.train=True, or leave {field} out"
        )
    for factor in (schedule.first, schedule.last):
        strength = injection.noise.strength * factor
        try:
            injection.noise.with_strength(strength)
        except ValueError as error:
            raise ValueError(
                f"{field}={text!r} multiplies the strength {injection.noise.strength:g} by "
                f"{factor:g}: {error}; lower the factor"
            ) from error
    return schedule


def make_scheduled(
    injections: Sequence[noise.Injection], factors: Sequence[optax.Schedule | None]
) -> Callable[[Any, Any], Any] | None:
    """What maps a step and strengths to the strengths of that step; None if all are constant.

    Args:
      injections: of the model.
      factors: of each, by step; None where its strength is constant.

    Returns:
      A function of the step and the strengths that stand in for the injections' own, or None: of
      one injection a scalar, else an array. It returns the like; where none were given, a tuple, in
      which None keeps an injection's own.
    """
    if all(factor is None for factor in factors):
        return None

    def scheduled(step: Any, strengths: Any) -> Any:
        if strengths is None:
            own = tuple(
                None if factor is None else each.noise.strength * factor(step)
                for factor, each in zip(factors, injections, strict=True)
            )
            return own[0] if len(own) == 1 else own
        by_step = jnp.stack([1.0 if factor is None else factor(step) for factor in factors])
        return strengths * by_step.reshape(jnp.shape(strengths))

    return scheduled
