"""The models by name: a family adds its lines to `_BUILT_IN`, and anybody can register more."""

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
from pnoise_jax.models.davit import DaViT
from pnoise_jax.models.maxvit import MaxVit
from pnoise_jax.models.parallel_vit import ParallelViT
from pnoise_jax.models.resnet import ResNet
from pnoise_jax.models.swin import SwinTransformer
from pnoise_jax.models.swin_v2 import SwinTransformerV2
from pnoise_jax.models.vit import VisionTransformer
from pnoise_jax.registry import Registry, did_you_mean

# The class, and the options in which the named model differs from the class's defaults.
_Entry = tuple[type[Classifier], Mapping[str, Any]]


def _entry(kind: type[Classifier], **options: Any) -> _Entry:
    return kind, MappingProxyType(options)


# What ViT, DeiT and BEiT of one size share.
_TINY = {"patch_size": 16, "dim": 192, "depth": 12, "num_heads": 3}
_SMALL = {"patch_size": 16, "dim": 384, "depth": 12, "num_heads": 6}
_BASE = {"patch_size": 16, "dim": 768, "depth": 12, "num_heads": 12}
_LARGE = {"patch_size": 16, "dim": 1024, "depth": 24, "num_heads": 16}
_HUGE = {"patch_size": 14, "dim": 1280, "depth": 32, "num_heads": 16}
_VIT_SIZES = {
    "ti": _entry(VisionTransformer, **_TINY),
    "s": _entry(VisionTransformer, **_SMALL),
    "b": _entry(VisionTransformer, **_BASE),
}
_MEDIUM = {"patch_size": 16, "dim": 512, "depth": 12, "num_heads": 8}
_DEIT3 = {"prefix_positions": False, "layer_scale": 1e-6}
# timm's own models for 256 pixels, whose head reads the mean of the patch tokens.
_REGISTERS = {"patch_size": 16, "image_size": 256, "class_token": False, "register_tokens": 4}
_REG_GAP = {**_REGISTERS, **_DEIT3, "layer_scale": 1e-5, "pooling": "mean_then_norm"}
_SO150M = {"dim": 896, "depth": 18, "num_heads": 14, "mlp_dim": 2304}
_SO150M2 = {"dim": 832, "depth": 21, "num_heads": 13, "mlp_dim": 2176, "qkv_bias": False}
_SWIN_384 = {"window_size": 12, "image_size": 384}
_SWIN_V2_SIZES = {
    "t": {"dim": 96, "stage_sizes": (2, 2, 6, 2)},
    "s": {"dim": 96, "stage_sizes": (2, 2, 18, 2)},
    "b": {"dim": 128, "stage_sizes": (2, 2, 18, 2)},
    "l": {"dim": 192, "stage_sizes": (2, 2, 18, 2)},
}
# Trained in windows of 12 tokens at 192 pixels, and then in larger ones.
_FROM_192 = {"pretrained_window_sizes": (12, 12, 12, 6)}
_SWIN_V2_256 = {"window_size": 16, "image_size": 256, **_FROM_192}
_SWIN_V2_384 = {"window_size": 24, "image_size": 384, **_FROM_192}

_BUILT_IN: Mapping[str, _Entry] = {
    # DeiT is a ViT, trained in another way; its distilled form has a second token.
    **{f"vit_{size}_16": entry for size, entry in _VIT_SIZES.items()},
    "vit_l_16": _entry(VisionTransformer, **_LARGE),
    "vit_b_8": _entry(VisionTransformer, **{**_BASE, "patch_size": 8}),
    "vit_b_32": _entry(VisionTransformer, **{**_BASE, "patch_size": 32}),
    "vit_h_14": _entry(VisionTransformer, **_HUGE),
    "vit_wee_16_reg1": _entry(
        VisionTransformer,
        **{**_REG_GAP, "register_tokens": 1, "dim": 256, "depth": 14, "num_heads": 4},
        mlp_dim=1280,
    ),
    "vit_little_16_reg4": _entry(
        VisionTransformer, **_REG_GAP, dim=320, depth=14, num_heads=5, mlp_dim=1792
    ),
    "vit_medium_16_reg4": _entry(VisionTransformer, **{**_REG_GAP, **_MEDIUM}),
    "vit_mediumd_16_reg4": _entry(VisionTransformer, **{**_REG_GAP, **_MEDIUM, "depth": 20}),
    "vit_betwixt_16_reg4": _entry(VisionTransformer, **_REG_GAP, dim=640, depth=12, num_heads=10),
    "vit_so150m_16_reg4": _entry(VisionTransformer, **_REGISTERS, **_SO150M, pooling="mean"),
    "vit_so150m2_16_reg1": _entry(
        VisionTransformer,
        **{**_REG_GAP, **_SO150M2, "register_tokens": 1, "prefix_positions": True},
    ),
    # CLIP's image encoders, fine-tuned.
    "vit_b_32_clip": _entry(VisionTransformer, **{**_BASE, "patch_size": 32}, pre_norm=True),
    "vit_b_16_clip": _entry(VisionTransformer, **_BASE, pre_norm=True),
    "vit_l_14_clip": _entry(VisionTransformer, **{**_LARGE, "patch_size": 14}, pre_norm=True),
    "vit_h_14_clip": _entry(VisionTransformer, **_HUGE, pre_norm=True),
    # ViT-22B, and its blocks in the sizes of ViT-S and ViT-g.
    "vit_22b": _entry(ParallelViT, dim=6144, depth=48, num_heads=48),
    "vit_parallel_s_14": _entry(ParallelViT, dim=384, depth=12, num_heads=6),
    "vit_parallel_g_14": _entry(ParallelViT, dim=1408, depth=40, num_heads=16, mlp_dim=6144),
    **{f"deit_{size}_16": entry for size, entry in _VIT_SIZES.items()},
    **{
        f"deit_{size}_16_distilled": _entry(kind, **options, distilled=True)
        for size, (kind, options) in _VIT_SIZES.items()
    },
    "deit3_s_16": _entry(VisionTransformer, **_SMALL, **_DEIT3),
    "deit3_m_16": _entry(VisionTransformer, **_MEDIUM, **_DEIT3),
    "deit3_b_16": _entry(VisionTransformer, **_BASE, **_DEIT3),
    "deit3_l_16": _entry(VisionTransformer, **_LARGE, **_DEIT3),
    "deit3_h_14": _entry(VisionTransformer, **_HUGE, **_DEIT3),
    "beit_b_16": _entry(Beit, **_BASE, layer_scale=0.1),
    "beit_l_16": _entry(Beit, **_LARGE, layer_scale=1e-5),
    "swin_t": _entry(SwinTransformer, dim=96, stage_sizes=(2, 2, 6, 2)),
    "swin_s": _entry(SwinTransformer, dim=96, stage_sizes=(2, 2, 18, 2)),
    "swin_b": _entry(SwinTransformer, dim=128, stage_sizes=(2, 2, 18, 2)),
    "swin_l": _entry(SwinTransformer, dim=192, stage_sizes=(2, 2, 18, 2)),
    "swin_b_384": _entry(SwinTransformer, dim=128, stage_sizes=(2, 2, 18, 2), **_SWIN_384),
    "swin_l_384": _entry(SwinTransformer, dim=192, stage_sizes=(2, 2, 18, 2), **_SWIN_384),
    **{
        f"swinv2_{size}{window}": _entry(SwinTransformerV2, **_SWIN_V2_SIZES[size], **options)
        for size in ("t", "s", "b")
        for window, options in (("", {}), ("_window16", {"window_size": 16}))
    },
    **{
        f"swinv2_{size}_{options['image_size']}": _entry(
            SwinTransformerV2, **_SWIN_V2_SIZES[size], **options
        )
        for size in ("b", "l")
        for options in (_SWIN_V2_256, _SWIN_V2_384)
    },
    "convit_ti": _entry(ConViT, dim=192, depth=12, num_heads=4),
    "convit_s": _entry(ConViT, dim=432, depth=12, num_heads=9),
    "convit_b": _entry(ConViT, dim=768, depth=12, num_heads=16),
    "davit_t": _entry(DaViT, dim=96, stage_sizes=(2, 2, 6, 2)),
    "davit_s": _entry(DaViT, dim=96, stage_sizes=(2, 2, 18, 2)),
    "davit_b": _entry(DaViT, dim=128, stage_sizes=(2, 2, 18, 2)),
    "davit_l": _entry(DaViT, dim=192, stage_sizes=(2, 2, 18, 2)),
    "davit_h": _entry(DaViT, dim=256, stage_sizes=(2, 2, 18, 2)),
    "davit_g": _entry(DaViT, dim=384, stage_sizes=(2, 2, 24, 6)),
    "maxvit_t": _entry(MaxVit, dim=64, stage_sizes=(2, 2, 5, 2)),
    "maxvit_s": _entry(MaxVit, dim=96, stage_sizes=(2, 2, 5, 2)),
    "maxvit_b": _entry(MaxVit, dim=96, stage_sizes=(2, 6, 14, 2)),
    "maxvit_l": _entry(MaxVit, dim=128, stem_dim=128, stage_sizes=(2, 6, 14, 2)),
    "maxvit_xl": _entry(MaxVit, dim=192, stem_dim=192, stage_sizes=(2, 6, 14, 2)),
    "resnet18": _entry(ResNet, stage_sizes=(2, 2, 2, 2), block="basic"),
    "resnet34": _entry(ResNet, stage_sizes=(3, 4, 6, 3), block="basic"),
    "resnet50": _entry(ResNet, stage_sizes=(3, 4, 6, 3), block="bottleneck"),
    "resnet101": _entry(ResNet, stage_sizes=(3, 4, 23, 3), block="bottleneck"),
}

_METHODS = ("run_embed", "run_block", "run_head")  # that every model defines


def _require_model(entry: _Entry | type) -> None:
    """Raises ValueError unless this is a class of models, naming what it lacks."""
    kind = entry if isinstance(entry, type) else entry[0]
    name = getattr(kind, "__name__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, Classifier)):
        raise ValueError(f"{name} is not a model: make it a subclass of models.Classifier")
    missing = [
        attribute
        for attribute in ("num_layers", *_METHODS)
        if getattr(kind, attribute) is getattr(Classifier, attribute)
    ]
    if kind.run_features is not Classifier.run_features and "run_head" in missing:
        missing.remove("run_head")  # which is the features and a dense layer
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
            f"{kind.__name__}.{method}: {error}; make its signature {wanted}"
        ) from error


MODELS: Registry[Any] = Registry("model", _require_model)
for _name, _named in _BUILT_IN.items():
    MODELS.register(_name, _named)


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
                raise ValueError(_unknown(name, option, kind))
        MODELS.register(name, (kind, MappingProxyType(options)))
        return kind

    return register


def _find(name: str) -> _Entry:
    """The class and its options.

    Raises:
      ValueError: there is no such model, it cannot be imported, or it is not a model.
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
    for option in options:
        if option not in _options(module):
            raise ValueError(_unknown(name, option, module))
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
    taken |= {"classifier_head", "image_head", "key_gate"}
    return sorted({field.name for field in dataclasses.fields(module)} - taken)


def explain_absent_option(option: str, options: Iterable[str]) -> str:
    """Why a model has no such option, where a similar name would mislead; else "".

    Args:
      option: what some models have.
      options: those of the model that has not.
    """
    if option == "depth" and "stage_sizes" not in options:
        return ""
    return _ABSENT.get(option, "")


_ABSENT = {
    "image_size": "this model takes images of any size (in a config, data.image_size sets it)",
    "patch_size": "this model has no patches",
    "depth": "this model has stages, and stage_sizes is the number of blocks in each",
}


def _unknown(name: str, option: str, kind: type[Classifier]) -> str:
    allowed = _options(kind)
    takes_any = kind.image_shape is Classifier.image_shape
    why = explain_absent_option(option, allowed) if takes_any or option != "image_size" else ""
    hint = f": {why}. There are: {', '.join(allowed)}" if why else did_you_mean(option, allowed)
    return f"unknown option of {name} {option!r}{hint}"
