"""The noises to show: those of a config, and every registered noise with its defaults."""

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
    """A noise to show at several strengths.

    Attributes:
      name: "gaussian", "cyclic_shift", or the section of a config.
      title: the name for display, with the fields that differ from their defaults.
      noise: the noise at strength 1, if that is allowed; else at its configured strength.
      sections: the sections of the config that have this noise.
      strengths: its strength in each of these sections.
    """

    name: str
    title: str
    noise: Noise
    sections: tuple[str, ...] = ()
    strengths: tuple[float, ...] = ()

    def missing_at(self, strength: float) -> str | None:
        """Returns why the noise cannot have this strength; None if it can."""
        try:
            self.noise.with_strength(strength)
        except ValueError as error:
            return str(error)
        return None

    def in_batches_of(self, k: int) -> Noise:
        """Returns the noise restricted to mixing at most k examples.

        Raises:
          ValueError: its group size does not divide k.
        """
        section = self.sections[0] if self.sections else self.name
        return noise.Injection(self.noise, section=section).in_batches_of(k).noise

    def mixed(self, k: int) -> int | None:
        """Returns how many examples of a batch of k it mixes; None if it mixes none."""
        return (self.noise.group_size or k) if self.noise.mixes_batch else None


def list_noises(
    injections: Sequence[noise.Injection],
) -> tuple[tuple[ShownNoise, ...], dict[str, str]]:
    """Lists the noises of a config, then all registered ones that it does not use.

    Args:
      injections: the injections of the config.

    Returns:
      The noises, and by name the reason why others cannot be shown.

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
    """Returns every registered noise at strength 1 with its name and title.

    Also returns, by name, why others cannot be built.
    """
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
    """Returns config sections that define this noise with its defaults, at strength 1."""
    if name != "linear_transform":
        fields = {field.name for field in dataclasses.fields(noise.NOISES[name])}
        strength = {"strength", "probability"} & fields
        return [(name, {"name": name} | dict.fromkeys(strength, 1.0))]
    return [(q, {"name": name, "quality": q, "strength": 1.0}) for q in _QUALITIES]


def _at_unit_strength(injection: noise.Injection) -> noise.Noise:
    """Returns the noise at strength 1, so noises that differ only in strength are shown as one."""
    where = f"{injection.section}: {injection.noise}"
    if injection.noise.mixes == "views":
        raise ValueError(
            f"{where} mixes views of one image, but each image is shown once: set "
            f"{injection.section}.axis='batch' or 'tokens'"
        )
    try:
        return injection.noise.with_strength(1.0)
    except ValueError:  # strength 1 is not allowed; `missing_at` reports it
        return injection.noise
    except Exception as error:  # a user-defined noise may raise anything
        raise ValueError(
            f"{where}: its strength cannot be changed ({type(error).__name__}: {error}): make "
            "strength a field of the noise, or define with_strength(strength)"
        ) from error


def _describe(unit: noise.Noise) -> str:
    """Returns the kind and the fields that differ from their defaults, without the strength."""
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
