"""The models by name; a family adds its lines to `_BUILT_IN`, and anybody can register more."""

import dataclasses
import fnmatch
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from pnoise_jax import noise
from pnoise_jax.models.beit import Beit
from pnoise_jax.models.classifier import Classifier
from pnoise_jax.models.convit import ConViT
from pnoise_jax.models.resnet import ResNet
from pnoise_jax.models.swin import SwinTransformer
from pnoise_jax.models.vit import VisionTransformer
from pnoise_jax.registry import Registry, did_you_mean

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


_BUILT_IN: Mapping[str, _Entry] = {
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


_METHODS = ("run_embed", "run_block", "run_head")  # that every model defines


def _require_model(entry: "_Entry | type") -> None:
    """Raises ValueError unless this is a class of models, naming what it lacks."""
    kind = entry if isinstance(entry, type) else entry[0]
    name = getattr(kind, "__name__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, Classifier)):
        raise ValueError(f"{name} is not a model: let it be a subclass of models.Classifier")
    missing = [
        attribute
        for attribute in ("num_layers", *_METHODS)
        if getattr(kind, attribute) is getattr(Classifier, attribute)
    ]
    if missing:
        raise ValueError(
            f"{name} lacks {', '.join(missing)}: models.Classifier says what a model must define"
        )
    for method in _METHODS:
        _require_signature(kind, method)


def _require_signature(kind: type[Classifier], method: str) -> None:
    """Raises ValueError unless a method can be called as `Classifier` calls it."""
    expected = inspect.signature(getattr(Classifier, method))
    parameters = [p.replace(annotation=p.empty) for p in expected.parameters.values()]
    by_name = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
    in_order = [None] * (len(parameters) - len(by_name))
    try:
        inspect.signature(getattr(kind, method)).bind(*in_order, **by_name)
    except TypeError as error:
        wanted = expected.replace(parameters=parameters, return_annotation=expected.empty)
        raise ValueError(
            f"{kind.__name__}.{method}: {error}; let its signature be {wanted}"
        ) from error


MODELS: Registry[Any] = Registry("model", _require_model)
for _name, _entry in _BUILT_IN.items():
    MODELS.register(_name, _entry)


def register_model(name: str, **options: Any) -> Callable[[type[Classifier]], type[Classifier]]:
    """A decorator that gives a model of your own a name: ``model_config("mine")`` takes it.

    Without registration, a config can say ``model_config("module:Class")``. One class may have
    several names, with other options.

    Args:
      name: a new one.
      **options: attributes in which the named model differs from the class's defaults.

    Raises:
      ValueError: the name is taken, an option is unknown, or the class lacks what every
        `Classifier` must define; says what.
    """

    def register(kind: type[Classifier]) -> type[Classifier]:
        _require_model(kind)
        for option in options:
            if option not in _options(kind):
                raise ValueError(_unknown(f"option of {name}", option, _options(kind)))
        MODELS.register(name, (kind, MappingProxyType(options)))
        return kind

    return register


def _find(name: str) -> _Entry:
    """The class and its options.

    Raises:
      ValueError: there is no such model; or it cannot be imported, or is none.
    """
    entry = MODELS[name]
    return (entry, {}) if isinstance(entry, type) else entry


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    injection: noise.Injection | tuple[noise.Injection, ...] | None = None,
    **options: Any,
) -> nn.Module:
    """Creates a model by name.

    Args:
      name: one of `list_models()`, or "module:Class".
      num_classes: number of logits.
      injection: where noise enters, and which: one, or a tuple of several; None for the plain
          model.
      **options: attributes of the model's class that differ from the named model's, such as
          `image_size`, `dtype` or `remat`.

    Returns:
      The module, whose `apply(variables, images, train=False, mask=None, noise_strength=None)`
      maps images (batch, height, width, channels) to float32 logits (batch, num_classes).

    Raises:
      ValueError: if the name or an option is unknown, if options contradict each other, or if
          an injection names a layer or a point that the model lacks.
    """
    module, defaults = _find(name)
    allowed = _options(module)
    for option in options:
        if option not in allowed:
            raise ValueError(_unknown(f"option of {name}", option, allowed))
    # A config that was stored as JSON has lists; modules must be hashable.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    model = module(**{**defaults, **options}, num_classes=num_classes, injection=injection)
    for each in model.injections:  # now, rather than at the first call
        each.validate(num_layers=model.num_layers, points=model.points)
    return model


def default_options(name: str) -> dict[str, Any]:
    """What `create_model` takes for this model beside classes and injection, with its defaults.

    Raises:
        ValueError: if the name is unknown.
    """
    module, defaults = _find(name)
    fields = {field.name: field.default for field in dataclasses.fields(module)}
    return {option: defaults.get(option, fields[option]) for option in _options(module)}


def list_models(pattern: str = "*") -> list[str]:
    """The sorted names of the models that match a shell-style pattern, such as "vit_*"."""
    return sorted(fnmatch.filter(MODELS, pattern))


def _options(module: type[nn.Module]) -> list[str]:
    """The attributes that `create_model` hands through: all but Flax's own and its own two."""
    taken = {"parent", "name", "num_classes", "injection"}
    return sorted({field.name for field in dataclasses.fields(module)} - taken)


def _unknown(what: str, got: str, allowed: Iterable[str]) -> str:
    return f"unknown {what} {got!r}{did_you_mean(got, allowed)}"
