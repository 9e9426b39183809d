"""Injection: which noise enters a model, where, and when. The spec that models accept."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from pnoise_jax.noise import checks
from pnoise_jax.noise.base import Noise, require_noise, require_noise_class
from pnoise_jax.noise.erase import Erase
from pnoise_jax.noise.injecting.config_fields import CONFIG_FIELDS
from pnoise_jax.noise.injecting.presets import PRESETS, RETIRED_PRESETS, require_preset
from pnoise_jax.noise.linear_transform import LinearTransform
from pnoise_jax.noise.pixels import PixelScale
from pnoise_jax.noise.quality import CyclicShift, Optimal, QualityMatrix, Reverse
from pnoise_jax.noise.stochastic import Gaussian, SaltAndPepper
from pnoise_jax.registry import Registry

# Where in a layer noise can enter.
Point = Literal["block_input", "attention_input", "image"]
Tokens = Literal["all", "patch"]
Layer = int | tuple[int, ...] | Literal["last", "random"]


@dataclasses.dataclass(frozen=True)
class Injection:
    """A noise and its place in a model.

    Attributes:
      noise: the noise to inject.
      layer: which layers get it: a number from 1 (a transformer's blocks; a ResNet's residual
        blocks, counted over all stages), several numbers, "last", or "random": one layer, drawn
        again at each call (figure 1).
      point: where in the layer: "block_input"; "attention_input", the output of the block's first
        normalisation, which the residual bypasses (the published code's site for ViTs); or "image",
        the model's input, for which `layer` has no meaning. A noise that mixes examples has the
        same effect at the image as on all tokens of a ViT's first block, because the patch
        embedding is affine.
      tokens: "all", or "patch", which leaves the class token and other prefix tokens alone. They
        are the same if the model has no such tokens.
      train: whether the noise acts when the model is applied with train=True.
      inference: whether the noise acts when the model is applied with train=False.
      stop_gradient: whether gradients treat the noise as a constant:
        ``x + stop_gradient(noise(x) - x)``.
      pixels: for the point "image": how the model's images were normalised. The noise then acts on
        pixels in [0, 1], and the result is clipped to [0, 1] and normalised again. If None, the
        noise acts on the images as the model gets them, and nothing is clipped. Injections of a
        config get it from ``data.mean`` and ``data.std``.
      section: the config section that describes the injection. Errors and reports use it as the
        injection's name; it does not affect what is injected.
    """

    noise: Noise
    layer: Layer = "last"
    point: Point = "block_input"
    tokens: Tokens = "all"
    train: bool = True
    inference: bool = False
    stop_gradient: bool = False
    pixels: PixelScale | None = dataclasses.field(default=None, kw_only=True)
    section: str = dataclasses.field(default="noise", kw_only=True, compare=False, repr=False)

    def __post_init__(self):
        require_noise(self.noise)
        if isinstance(self.layer, list):
            object.__setattr__(self, "layer", tuple(self.layer))
        numbers = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in numbers)
        if self.layer not in ("last", "random") and not (whole and numbers):
            raise ValueError(
                f"layer={self.layer!r}: give a number from 1, several numbers, 'last' or 'random'"
            )
        for switch in ("train", "inference", "stop_gradient"):
            checks.require_one_of(switch, getattr(self, switch), (True, False))
        checks.require_one_of("point", self.point, get_args(Point))
        checks.require_one_of("tokens", self.tokens, get_args(Tokens))
        if self.pixels is not None and self.point != "image":
            raise ValueError(
                f"pixels={self.pixels!r} with point={self.point!r}: only images have pixels; set "
                "point='image', or pixels=None"
            )

    @property
    def draws_layer(self) -> bool:
        """Whether each call draws the layer again."""
        return self.layer == "random" and self.point != "image"

    def first_layer(self, num_layers: int) -> int:
        """The first layer that can be noisy, in a model with ``num_layers``; 0 for the image."""
        return 0 if self.point == "image" else min(self.layers(num_layers))

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """The numbers of the layers that can be noisy, in a model with ``num_layers``."""
        if self.layer == "random":
            return tuple(range(1, num_layers + 1))
        if self.layer == "last":
            return (num_layers,)
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    def validate(self, *, num_layers: int, points: tuple[str, ...]) -> None:
        """Raises ValueError if a model with ``num_layers`` and these points lacks the place."""
        if self.point not in points:
            raise ValueError(
                f"{self.section}.point={self.point!r}: this model has no such point; it has "
                + ", ".join(map(repr, points))
            )
        absent = [n for n in self.layers(num_layers) if n > num_layers]
        if absent and self.point != "image":
            raise ValueError(
                f"{self.section}.layer={self.layer!r}: this model has no layer {absent[0]}; its "
                f"layers are 1 to {num_layers}, or 'last' or 'random'"
            )

    def in_batches_of(self, size: int) -> "Injection":
        """The same injection, but a noise that mixes the whole batch mixes groups of ``size``.

        A protocol's batch size then does not depend on how many examples the device computes at
        once.

        Raises:
          ValueError: the noise has a group size that does not divide ``size``.
        """
        noise = self.noise
        if not noise.mixes_batch:
            return self
        group_size = noise.group_size or size
        if size % group_size:
            raise ValueError(
                f"{self.section}.group_size={group_size} does not divide the batch of {size} "
                "examples; set it to a divisor of the batch size, or to None for the whole batch"
            )
        return dataclasses.replace(self, noise=dataclasses.replace(noise, group_size=group_size))

    def with_strength(self, strength: float) -> "Injection":
        """The same injection with its noise at another strength.

        Models whose injections differ only in strength are different static arguments to jit. To
        share one compiled program, set the same strength on all of them here, and pass each
        model's own strength, traced, at call time.
        """
        return dataclasses.replace(self, noise=self.noise.with_strength(strength))

    @classmethod
    def preset(cls, name: str) -> "Injection":
        """The settings of the paper or of the published code, by name; see `PRESETS`."""
        injection = cls.from_config({"preset": name})
        assert injection is not None, f"preset {name!r} names no noise"
        return injection

    @classmethod
    def from_config(cls, section: Mapping[str, Any], *, name: str = "noise") -> "Injection | None":
        """Builds one injection from a config section; its keys are those of `CONFIG_FIELDS`.

        A key that is absent or None takes its value from the section's preset, if it names one,
        or else the default. If the section sets another noise or quality than the preset's, only
        the preset's place applies. Returns None if the section names neither a preset nor a noise.
        For a section with ``others``, use `injections_from_config`.

        Args:
          section: the noise section of a config.
          name: the section's name, for errors.

        Raises:
          ValueError: a key, preset, noise or quality is unknown, the chosen noise does not use a
            key that is set, a value is not allowed, or ``others`` is set.
        """
        try:
            injection = _from_settings(section)
        except ValueError as error:  # the messages begin with the field's name
            raise ValueError(f"{name}.{error}") from None
        return injection and dataclasses.replace(injection, section=name)


# The keys that say where and when the noise acts, not what it is.
_PLACE = {field.name for field in dataclasses.fields(Injection)} - {"noise", "pixels", "section"}

_QUALITIES: dict[str, tuple[type[QualityMatrix], tuple[str, ...]]] = {
    "cyclic_shift": (CyclicShift, ("strength", "shift")),
    "reverse": (Reverse, ("strength",)),
    "optimal": (Optimal, ("strength",)),
}
_LINEAR_TRANSFORM = ("quality", "strength", "shift", "implementation", "axis", "group_size")

NOISES: Registry[type[Noise]] = Registry("noise", require_noise_class)
NOISES.register("linear_transform", LinearTransform)
NOISES.register("gaussian", Gaussian)
NOISES.register("salt_and_pepper", SaltAndPepper)
NOISES.register("erase", Erase)


def register_noise(name: str) -> Callable[[type[Noise]], type[Noise]]:
    """A decorator that registers your own noise for use in configs: ``noise.name = "mine"``.

    Without registration, a config can set ``noise.name = "module:Class"``. Keys of the noise
    section (such as ``noise.strength``) set the noise's fields of the same name, and
    ``noise.options`` sets the others.

    Args:
      name: a name that is not taken.

    Raises:
      ValueError: the name is taken, or the class lacks something that every `Noise` must have; the
        error names it.
    """
    return functools.partial(NOISES.register, name)


def _from_settings(section: Mapping[str, Any]) -> Injection | None:
    for key in section:
        if key not in CONFIG_FIELDS:
            raise ValueError(checks.unknown(f"{key}: unknown key", key, CONFIG_FIELDS))
    fields = _without_unset(section)
    if "others" in fields:
        raise ValueError(
            f"others={list(fields['others'])}: this section describes one injection; a config "
            "lists the others in noise.others"
        )
    preset = fields.pop("preset", None)
    if preset is not None:
        require_preset(preset)
    inherited = _inherited({} if preset is None else PRESETS[preset], fields)
    name = fields.pop("name", inherited.get("name"))
    if name is None or name == "none":
        _refuse_unused(fields, "there is no noise: noise.name and noise.preset are not set")
        return None
    fields.pop("schedule", None)  # a model does not know the step: training scales the strength
    try:
        kind = NOISES[name]
    except ValueError as error:
        raise ValueError(f"name={name!r}: {error}") from error
    settings = {key: value for key, value in (inherited | fields).items() if key != "name"}
    if "layer" in settings:
        settings["layer"] = _parse_layer(settings["layer"])
    place = {key: value for key, value in settings.items() if key in _PLACE}
    noise_settings = {key: value for key, value in settings.items() if key not in _PLACE}
    if not kind.__module__.startswith("pnoise_jax."):  # built-in noises have no other fields
        noise_settings |= _require_options(noise_settings.pop("options", {}))
    used = _LINEAR_TRANSFORM if kind is LinearTransform else _field_names(kind)
    unused = {key: value for key, value in noise_settings.items() if key not in used}
    _refuse_unused(unused, f"{name} does not use it")
    return Injection(_build_noise(kind, noise_settings), **_effective_place(place, fields))


def _require_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a user's own noise; ValueError if one of them is a field of the section."""
    for key in options:
        if key in CONFIG_FIELDS and key not in _PLACE:
            raise ValueError(
                f"options={dict(options)!r}: {key} is a field of the section itself; set it "
                "there, and remove it from the options"
            )
    return dict(options)


def _effective_place(place: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the place; at the image, without a preset's layer and tokens.

    Raises:
      ValueError: the section sets a field that has no effect.
    """
    if fields.get("stop_gradient") and not place.get("train", True):
        _refuse_unused({"stop_gradient": True}, "noise with train=False does not use it")
    if place.get("point") != "image":
        return dict(place)
    idle = ("layer", "tokens")
    _refuse_unused(
        {key: fields[key] for key in idle if key in fields}, "point='image' does not use it"
    )
    return {key: value for key, value in place.items() if key not in idle}


def _field_names(kind: type[Noise]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)} - {"axis_name"}


def _without_unset(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section without the keys that are not set."""
    return {
        key: value
        for key, value in section.items()
        if value not in (None, "None") and not (key in ("options", "others") and len(value) == 0)
    }


def _inherited(settings: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's settings that apply; if noise or quality differ, only the name and place."""
    if any(fields.get(key, settings.get(key)) != settings.get(key) for key in ("name", "quality")):
        return {key: value for key, value in settings.items() if key in _PLACE or key == "name"}
    return dict(settings)


def spell_out_retired(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a stored config, with a retired preset replaced by its settings.

    A run that was trained with a retired preset can then still be evaluated and resumed.
    """
    section = dict(section)
    if others := section.get("others"):
        section["others"] = {name: spell_out_retired(each) for name, each in others.items()}
    fields = _without_unset(section)
    if fields.get("preset") not in RETIRED_PRESETS:
        return section
    settings = {}
    if fields.get("name") != "none":
        settings = _inherited(RETIRED_PRESETS[fields["preset"]].settings, fields)
    return {**section, **settings, **fields, "preset": None}


def _build_noise(kind: type[Noise], settings: dict[str, Any]) -> Noise:
    if kind is not LinearTransform:
        needed = [f.name for f in dataclasses.fields(kind) if _is_required(f)]
        for field in needed:
            if field not in settings:
                raise ValueError(f"{field} is not set: {kind.__name__} needs it")
        return kind(**settings)
    quality = settings.pop("quality", None)
    if quality not in _QUALITIES:
        raise ValueError(checks.unknown(f"quality={quality!r}: unknown", quality, _QUALITIES))
    quality_kind, fields = _QUALITIES[quality]
    quality_settings = {key: settings.pop(key) for key in fields if key in settings}
    if quality in ("cyclic_shift", "reverse") and "strength" not in quality_settings:
        raise ValueError(
            f"strength is not set: {quality} needs one, the share of the other example"
        )
    _refuse_unused(
        {k: v for k, v in settings.items() if k == "shift"}, f"{quality} does not use it"
    )
    return LinearTransform(quality_kind(**quality_settings), **settings)


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _parse_layer(value: Any) -> Any:
    """Parses ``"3"`` to 3, ``"6,8"`` and ``"(6, 8)"`` to (6, 8); returns others unchanged."""
    if not isinstance(value, str):
        return value
    bracketed = re.fullmatch(r"\((.*)\)|\[(.*)\]", value.strip())
    listed = bracketed[1] or bracketed[2] or "" if bracketed else value
    parts = [part.strip() for part in listed.removesuffix(",").split(",")]
    if not all(re.fullmatch(r"-?[0-9]+", part) for part in parts):
        return value
    return tuple(map(int, parts)) if len(parts) > 1 else int(parts[0])


def _refuse_unused(unused: Mapping[str, Any], why: str) -> None:
    if unused:
        key, value = next(iter(unused.items()))
        raise ValueError(f"{key}={value!r} is set, but {why}; set it to None")
