"""The models by name. A further family adds its lines to `_MODELS`, and nothing else here."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from pnoise_jax import noise
from pnoise_jax.models.beit import Beit
from pnoise_jax.models.convit import ConViT
from pnoise_jax.models.resnet import ResNet
from pnoise_jax.models.swin import SwinTransformer
from pnoise_jax.models.vit import VisionTransformer

# The class, and the options in which the named model differs from the class's defaults.
_Entry = tuple[type[nn.Module], Mapping[str, Any]]


def _vit(**options: Any) -> _Entry:
    return VisionTransformer, MappingProxyType(options)


def _beit(**options: Any) -> _Entry:
    return Beit, MappingProxyType(options)


def _swin(**options: Any) -> _Entry:
    return SwinTransformer, MappingProxyType(options)


def _convit(**options: Any) -> _Entry:
    return ConViT, MappingProxyType(options)


def _resnet(*stage_sizes: int, block: str) -> _Entry:
    return ResNet, MappingProxyType({"stage_sizes": stage_sizes, "block": block})


_MODELS: Mapping[str, _Entry] = MappingProxyType(
    {
        "vit_ti_16": _vit(patch_size=16, dim=192, depth=12, num_heads=3),
        "vit_s_16": _vit(patch_size=16, dim=384, depth=12, num_heads=6),
        "vit_b_16": _vit(patch_size=16, dim=768, depth=12, num_heads=12),
        "vit_l_16": _vit(patch_size=16, dim=1024, depth=24, num_heads=16),
        "deit_ti_16": _vit(patch_size=16, dim=192, depth=12, num_heads=3),
        "deit_s_16": _vit(patch_size=16, dim=384, depth=12, num_heads=6),
        "deit_b_16": _vit(patch_size=16, dim=768, depth=12, num_heads=12),
        "deit_ti_16_distilled": _vit(patch_size=16, dim=192, depth=12, num_heads=3, distilled=True),
        "deit_s_16_distilled": _vit(patch_size=16, dim=384, depth=12, num_heads=6, distilled=True),
        "deit_b_16_distilled": _vit(patch_size=16, dim=768, depth=12, num_heads=12, distilled=True),
        "beit_b_16": _beit(patch_size=16, dim=768, depth=12, num_heads=12, layer_scale=0.1),
        "beit_l_16": _beit(patch_size=16, dim=1024, depth=24, num_heads=16, layer_scale=1e-5),
        "swin_t": _swin(dim=96, stage_sizes=(2, 2, 6, 2)),
        "swin_s": _swin(dim=96, stage_sizes=(2, 2, 18, 2)),
        "swin_b": _swin(dim=128, stage_sizes=(2, 2, 18, 2)),
        "swin_l": _swin(dim=192, stage_sizes=(2, 2, 18, 2)),
        "swin_b_384": _swin(dim=128, stage_sizes=(2, 2, 18, 2), window_size=12, image_size=384),
        "swin_l_384": _swin(dim=192, stage_sizes=(2, 2, 18, 2), window_size=12, image_size=384),
        "convit_ti": _convit(dim=192, depth=12, num_heads=4),
        "convit_s": _convit(dim=432, depth=12, num_heads=9),
        "convit_b": _convit(dim=768, depth=12, num_heads=16),
        "resnet18": _resnet(2, 2, 2, 2, block="basic"),
        "resnet34": _resnet(3, 4, 6, 3, block="basic"),
        "resnet50": _resnet(3, 4, 6, 3, block="bottleneck"),
        "resnet101": _resnet(3, 4, 23, 3, block="bottleneck"),
    }
)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    injection: noise.Injection | None = None,
    **options: Any,
) -> nn.Module:
    """Creates a model by name.

    Args:
      name: one of `list_models()`.
      num_classes: number of logits.
      injection: where noise enters, and which; None for the plain model.
      **options: attributes of the model's class that differ from the named model's, such as
          `image_size`, `dtype` or `remat`.

    Returns:
      The module, whose `apply(variables, images, train=False, mask=None, noise_strength=None)`
      maps images (batch, height, width, channels) to float32 logits (batch, num_classes).

    Raises:
      ValueError: if the name or an option is unknown, if options contradict each other, or if
          the injection names a layer or a point that the model lacks.
    """
    if name not in _MODELS:
        raise ValueError(_unknown("model", name, list_models()))
    module, defaults = _MODELS[name]
    allowed = _options(module)
    for option in options:
        if option not in allowed:
            raise ValueError(_unknown(f"option of {name}", option, allowed))
    # A config that was stored as JSON has lists; modules must be hashable.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    model = module(**{**defaults, **options}, num_classes=num_classes, injection=injection)
    if injection is not None:  # now, rather than at the first call
        injection.validate(num_layers=model.num_layers, points=model.points)
    return model


def default_options(name: str) -> dict[str, Any]:
    """What `create_model` takes for this model beside classes and injection, with its defaults.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in _MODELS:
        raise ValueError(_unknown("model", name, list_models()))
    module, defaults = _MODELS[name]
    fields = {field.name: field.default for field in dataclasses.fields(module)}
    return {option: defaults.get(option, fields[option]) for option in _options(module)}


def list_models(pattern: str = "*") -> list[str]:
    """The sorted names of the models that match a shell-style pattern, such as "vit_*"."""
    return sorted(fnmatch.filter(_MODELS, pattern))


def _options(module: type[nn.Module]) -> list[str]:
    """The attributes that `create_model` hands through: all but Flax's own and its own two."""
    taken = {"parent", "name", "num_classes", "injection"}
    return sorted({field.name for field in dataclasses.fields(module)} - taken)


def _unknown(what: str, got: str, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    near = difflib.get_close_matches(got, allowed)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {what} {got!r}: {hint}Use one of {', '.join(allowed)}"
