"""Schedules of the injections' strengths: parsed from a config, and applied in the step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from pnoise_jax import noise
from pnoise_jax.training.configuration.strength_schedule import StrengthSchedule


def parse_noise_schedules(
    section: Mapping[str, Any], injections: Sequence[noise.Injection]
) -> tuple[StrengthSchedule | None, ...]:
    """The schedule of each injection; None if its strength is constant.

    Args:
      section: the config's noise section.
      injections: the injections that it describes.

    Raises:
      ValueError: a schedule is malformed, its noise is off in training, or the noise cannot have a
        strength that the schedule reaches, such as a probability above 1.
    """
    return tuple(_parse(section, each) for each in injections)


def _parse(section: Mapping[str, Any], injection: noise.Injection) -> StrengthSchedule | None:
    name = injection.section
    fields = section if name == "noise" else section["others"][name.removeprefix("noise.others.")]
    text, field = fields.get("schedule"), f"{name}.schedule"
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
    """A function that computes the strengths at a step; None if all are constant.

    Args:
      injections: the model's injections.
      factors: the factor of each strength by step; None if the strength is constant.

    Returns:
      A function ``(step, strengths) -> strengths``. Its second argument overrides the injections'
      own strengths: a scalar for a single injection, otherwise an array; the result has the same
      shape. If it is None, the injections' own strengths are scaled, and the result is a scalar, or
      for several injections a tuple in which None keeps an injection's own strength.
    """
    if all(factor is None for factor in factors):
        return None

    def scheduled(step: Any, strengths: Any) -> Any:
        if strengths is None:
            scaled = tuple(
                None if factor is None else each.noise.strength * factor(step)
                for factor, each in zip(factors, injections, strict=True)
            )
            return scaled[0] if len(scaled) == 1 else scaled
        by_step = jnp.stack([1.0 if factor is None else factor(step) for factor in factors])
        return strengths * by_step.reshape(jnp.shape(strengths))

    return scheduled
