"""The injections of a model: one, several, or none."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pnoise_jax.noise.injecting.injection import Injection
from pnoise_jax.noise.pixels import PixelScale


def as_injections(injection: Injection | Sequence[Injection] | None) -> tuple[Injection, ...]:
    """A model's ``injection``, which is one, several or None, as a tuple.

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


def injections_from_config(section: Mapping[str, Any]) -> tuple[Injection, ...]:
    """The injections of a config's noise section: its own, then its ``others`` ordered by name.

    A section that names no noise adds no injection. In one of the others, ``name="none"`` turns it
    off, whatever else it sets. Each injection is named after its section, such as
    "noise.others.early".

    Raises:
      ValueError: as in `Injection.from_config`, or if one of the others is not a section.
    """
    sections = {"noise": {key: section[key] for key in section if key != "others"}}
    others = section.get("others") or {}
    sections |= {f"noise.others.{name}": others[name] for name in sorted(others)}
    built = []
    for name, each in sections.items():
        if not hasattr(each, "items"):
            raise ValueError(
                f"{name}={each!r}: give a section, such as "
                "training.noise_config(preset='paper_vit')"
            )
        if name == "noise" or each.get("name") != "none":
            built.append(Injection.from_config(each, name=name))
    return tuple(each for each in built if each is not None)


def in_pixels(
    injection: Injection | Sequence[Injection] | None, pixels: PixelScale
) -> tuple[Injection, ...]:
    """A model's injections, where those at the image are set to act on pixels in [0, 1].

    Args:
      injection: one, several or None.
      pixels: how the model's images were normalised.
    """
    return tuple(
        dataclasses.replace(each, pixels=pixels) if each.point == "image" else each
        for each in as_injections(injection)
    )


def switch_for_evaluation(
    injection: Injection | Sequence[Injection] | None,
) -> tuple[Injection, ...]:
    """A model's injections, with ``inference`` set for an evaluation with noise.

    The injections whose ``inference`` is True act. If there are none, all act: an evaluation with
    noise measures what the noise does, even if it is meant only for training.
    """
    injections = as_injections(injection)
    if any(each.inference for each in injections):
        return injections
    return tuple(dataclasses.replace(each, inference=True) for each in injections)
