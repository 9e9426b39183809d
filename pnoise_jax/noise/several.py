"""One injection, several, or none: what a model takes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pnoise_jax.noise.injection import Injection
from pnoise_jax.noise.pixels import PixelScale


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


def injections_from_config(section: Mapping[str, Any]) -> tuple[Injection, ...]:
    """The injections of a config's noise section: its own, then its ``others`` ordered by name.

    A section that names no noise gives no injection, and ``name="none"`` turns one of the others
    off, whatever else it sets. Each injection is called by its section, "noise.others.early".

    Raises:
      ValueError: as `Injection.from_config`, or one of the others is not a section.
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
    """A model's injections, of which those at the image act on pixels in [0, 1].

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
    """A model's injections with ``inference`` as it is in an evaluation with noise.

    Those act whose ``inference`` is True. Where that is true of none, all act: an evaluation with
    noise asks what the noise does, even if it is meant for training alone.
    """
    injections = as_injections(injection)
    if any(each.inference for each in injections):
        return injections
    return tuple(dataclasses.replace(each, inference=True) for each in injections)
