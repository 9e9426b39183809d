"""All that keeps the weights of a file from being a model's, in one report."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from pnoise_jax.weights import likeness
from pnoise_jax.weights.arrays import Entries, Shape
from pnoise_jax.weights.fitting import heads_in

_LISTED = 20  # arrays of a kind
_UNSEEN = ("num_heads", "pooling")  # options that no shape shows


def describe(
    entries: Entries,
    wanted: Mapping[str, Shape],
    model: nn.Module,
    *,
    theirs: Mapping[str, Shape],
    options: Mapping[str, Any],
    advice: Sequence[str],
) -> str:
    """What is missing, unexpected, of another shape or known to differ; "" where all fits.

    Args:
      entries: what the file has, by our paths, made to fit where that is allowed.
      wanted: what is to be taken from it.
      model: the model.
      theirs: the shapes in the file, by our paths.
      options: of their model, as far as they are known.
      advice: on what could not be made to fit.
    """
    missing = sorted(wanted.keys() - entries.keys())
    unexpected = sorted(entries.keys() - wanted.keys())
    misshapen = [
        path
        for path in sorted(wanted.keys() & entries.keys())
        if entries[path].shape != wanted[path]
    ]
    lines = [
        *_listed("missing", [f"{path} {wanted[path]}" for path in missing]),
        *_listed("unexpected", [_theirs(entries, path) for path in unexpected]),
        *_listed(
            "of another shape",
            [f"{_theirs(entries, path)}, where {path} is {wanted[path]}" for path in misshapen],
        ),
        *_unseen(model, options),
    ]
    if not lines:
        return ""
    different = [*missing, *unexpected, *misshapen]
    if different:
        lines += [*advice, *_class_token(entries, wanted, model)]
    hint = likeness.describe(theirs)
    if hint and len(different) > len(heads_in(different)):
        lines.append(f"It looks like {hint}: set config.model to it")
    return "\n  ".join(["does not fit config.model:", *lines])


def _theirs(entries: Entries, path: str) -> str:
    return f"{' + '.join(entries[path].names)} {entries[path].shape}"


def _listed(what: str, found: list[str]) -> list[str]:
    """One line, or none."""
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return [f"{len(found)} {what}: {', '.join(found[:_LISTED])}{more}"] if found else []


def _unseen(model: nn.Module, options: Mapping[str, Any]) -> list[str]:
    """Options that differ and change the function, though not the shapes."""
    lines = []
    for option in _UNSEEN:
        theirs, ours = options.get(option), getattr(model, option, None)
        if theirs is not None and ours is not None and theirs != ours:
            lines.append(
                f"has {option}={theirs!r}, the model {ours!r}: set model.{option}={theirs!r}"
            )
    return lines


def _class_token(entries: Entries, wanted: Mapping[str, Shape], model: nn.Module) -> list[str]:
    """What to set where only one of the two has a class token and the model can do without."""
    theirs, ours = ("params/cls_token" in of for of in (entries, wanted))
    if theirs == ours or not hasattr(model, "class_token"):
        return []
    if theirs:
        return [
            "The file has a class token and the model has none: set model.class_token=True, and "
            "model.pooling='token' where the head reads it"
        ]
    return [
        "The file has no class token and the model has one: set model.class_token=False and "
        "model.pooling='mean'"
    ]
