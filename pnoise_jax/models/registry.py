"""The registry of models: the built-in ones, and those that users register."""

import dataclasses
import fnmatch
import inspect
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from pnoise_jax import noise
from pnoise_jax.models.built_in import BUILT_IN, Entry
from pnoise_jax.models.classifier import Classifier
from pnoise_jax.registry import Registry, did_you_mean

_METHODS = ("run_embed", "run_block", "run_head")  # every model must define these


def _require_model(entry: Entry | type) -> None:
    """Raises ValueError, naming what is missing, unless the entry is a valid model class."""
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
        missing.remove("run_head")  # by default, it applies a dense layer to the features
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
            f"{kind.__name__}.{method}: {error}; change its signature to {wanted}"
        ) from error


MODELS: Registry[Any] = Registry("model", _require_model)
for _name, _named in BUILT_IN.items():
    MODELS.register(_name, _named)


def register_model(name: str, **options: Any) -> Callable[[type[Classifier]], type[Classifier]]:
    """A decorator that registers your own model, for use as ``model_config("mine")``.

    Without registration, a config can use ``model_config("module:Class")``. One class can have
    several names, each with different options.

    Args:
      name: a name that is not taken.
      **options: attributes in which the named model differs from the class's defaults.

    Raises:
      ValueError: the name is taken, an option is unknown, or the class lacks something that every
        `Classifier` must define; the error names it.
    """

    def register(kind: type[Classifier]) -> type[Classifier]:
        _require_model(kind)
        for option in options:
            if option not in _options(kind):
                raise ValueError(_unknown(name, option, kind))
        MODELS.register(name, (kind, MappingProxyType(options)))
        return kind

    return register


def _find(name: str) -> Entry:
    """The class and the options of a named model.

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
      injection: which noise enters where: one injection, or a tuple of several; None for the plain
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
    for each in model.injections:  # fail now, not at the first call
        each.validate(num_layers=model.num_layers, points=model.points)
    return model


def default_options(name: str) -> dict[str, Any]:
    """The options of `create_model` for this model, with their defaults.

    Without `num_classes` and `injection`, which every model has.

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
    """The attributes that are options: all except Flax's, `create_model`'s own, and tasks'."""
    reserved = {"parent", "name", "num_classes", "injection"}
    reserved |= {"classifier_head", "image_head", "key_gate"}
    return sorted({field.name for field in dataclasses.fields(module)} - reserved)


def explain_absent_option(option: str, options: Iterable[str]) -> str:
    """Why a model lacks an option, if suggesting similar names would mislead; else "".

    Args:
      option: an option that some models have.
      options: the options of the model that lacks it.
    """
    if option == "depth" and "stage_sizes" not in options:
        return ""
    return _ABSENT.get(option, "")


_ABSENT = {
    "image_size": "this model accepts images of any size (in a config, data.image_size sets it)",
    "patch_size": "this model has no patches",
    "depth": "this model has stages, and stage_sizes is the number of blocks in each",
}


def _unknown(name: str, option: str, kind: type[Classifier]) -> str:
    allowed = _options(kind)
    takes_any = kind.image_shape is Classifier.image_shape
    why = explain_absent_option(option, allowed) if takes_any or option != "image_size" else ""
    hint = f": {why}. There are: {', '.join(allowed)}" if why else did_you_mean(option, allowed)
    return f"unknown option of {name} {option!r}{hint}"
