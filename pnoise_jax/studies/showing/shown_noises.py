"""The noises that are shown: those of a config, and every registered one with its defaults."""

import dataclasses
from collections.abc import Sequence

from pnoise_jax import noise
from pnoise_jax.noise import Noise

_QUALITIES = ("cyclic_shift", "reverse", "optimal")
_TITLES = {
    "gaussian": "Gaussian",
    "salt_and_pepper": "salt and pepper",
    "cyclic_shift": "cyclic shift",
    "optimal": "optimal Q",
}


@dataclasses.dataclass(frozen=True)
class ShownNoise:
    """A noise to be shown at several strengths.

    Attributes:
      name: "gaussian", "cyclic_shift", or the section of a config.
      title: the same for readers, with what differs from the defaults.
      noise: at strength 1, where that is allowed.
      sections: of the config, that have this noise.
      strengths: that these sections give it, in their order.
    """

    name: str
    title: str
    noise: Noise
    sections: tuple[str, ...] = ()
    strengths: tuple[float, ...] = ()

    def missing_at(self, strength: float) -> str | None:
        """Why there is no such noise of this strength; None where there is one."""
        try:
            self.noise.with_strength(strength)
        except ValueError as error:
            return str(error)
        return None

    def in_batches_of(self, k: int) -> Noise:
        """The noise, which mixes no more than k examples.

        Raises:
          ValueError: its group size does not divide k.
        """
        section = self.sections[0] if self.sections else self.name
        return noise.Injection(self.noise, section=section).in_batches_of(k).noise

    def mixed(self, k: int) -> int | None:
        """How many examples of a batch of k it mixes; None where it mixes none."""
        return (self.noise.group_size or k) if self.noise.mixes_batch else None


def list_noises(
    injections: Sequence[noise.Injection],
) -> tuple[tuple[ShownNoise, ...], dict[str, str]]:
    """The noises of a config, then all registered ones that it does not have.

    Args:
      injections: of the config.

    Returns:
      The noises, and by name why others cannot be shown.

    Raises:
      ValueError: a noise of the config cannot be shown.
    """
    defaults, missing = _registered()
    shown: dict[noise.Noise, ShownNoise] = {}
    for injection in injections:
        unit = _at_unit_strength(injection)
        name, title = defaults.get(unit, (injection.section, _describe(unit)))
        before = shown.get(unit, ShownNoise(name, title, unit))
        shown[unit] = dataclasses.replace(
            before,
            sections=(*before.sections, injection.section),
            strengths=(*before.strengths, float(injection.noise.strength)),
        )
    for unit, (name, title) in defaults.items():
        shown.setdefault(unit, ShownNoise(name, title, unit))
    return tuple(shown.values()), missing


def _registered() -> tuple[dict[noise.Noise, tuple[str, str]], dict[str, str]]:
    """Every registered noise of strength 1 with its name and title; by name why others lack."""
    defaults, missing = {}, {}
    for name in noise.NOISES:
        try:
            for each, section in _sections(name):
                injection = noise.Injection.from_config(section)
                assert injection is not None, f"{section} names a noise"
                title = _TITLES.get(each, each.replace("_", " "))
                defaults.setdefault(_at_unit_strength(injection), (each, title))
        except ValueError as error:
            missing[name] = str(error)
    return defaults, missing


def _sections(name: str) -> list[tuple[str, dict]]:
    """The sections of a config that give this noise with its defaults, at strength 1."""
    if name != "linear_transform":
        fields = {field.name for field in dataclasses.fields(noise.NOISES[name])}
        strength = {"strength", "probability"} & fields
        return [(name, {"name": name} | dict.fromkeys(strength, 1.0))]
    return [(q, {"name": name, "quality": q, "strength": 1.0}) for q in _QUALITIES]


def _at_unit_strength(injection: noise.Injection) -> noise.Noise:
    """So that noises that differ in strength alone are shown as one."""
    where = f"{injection.section}: {injection.noise}"
    if injection.noise.mixes == "views":
        raise ValueError(
            f"{where} mixes views of one image, and each image is shown once: set "
            f"{injection.section}.axis='batch' or 'tokens'"
        )
    try:
        return injection.noise.with_strength(1.0)
    except ValueError:  # such a strength is not allowed, which is said where it would be shown
        return injection.noise
    except Exception as error:  # a noise of the user's own may raise anything
        raise ValueError(
            f"{where} cannot be given another strength ({type(error).__name__}: {error}): let "
            "strength be a field of it, or define with_strength(strength)"
        ) from error


def _describe(unit: noise.Noise) -> str:
    """The kind, and the fields that differ from their defaults but for the strength."""
    if isinstance(unit, noise.LinearTransform):
        quality = unit.quality
        texts = [*_differing(quality), *_differing(unit, but=("quality", "implementation"))]
        kind = type(quality).__name__
    else:
        texts, kind = _differing(unit), type(unit).__name__
    return kind + (f" ({', '.join(texts)})" if texts else "")


def _differing(configured, but: tuple[str, ...] = ()) -> list[str]:
    hidden = ("strength", "probability", *but)
    fields = [field for field in dataclasses.fields(configured) if field.name not in hidden]
    settings = {field.name: (getattr(configured, field.name), field.default) for field in fields}
    return [f"{name}={value!r}" for name, (value, default) in settings.items() if value != default]
