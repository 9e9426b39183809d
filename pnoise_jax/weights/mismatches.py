"""All that keeps the weights of a file from being a model's, in one report."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from pnoise_jax.models import Beit, ConViT, ResNet, SwinTransformer
from pnoise_jax.weights.arrays import FLOATS, ArrayFile, Entries, Entry, Shape
from pnoise_jax.weights.errors import shown
from pnoise_jax.weights.fitting import Fit, heads_in
from pnoise_jax.weights.guessing import guess_channels, guess_model

_LISTED = 20  # arrays of a kind
_NO_FLOATS = "without floating-point numbers, to be saved as float32"
_NOT_IN_SHAPES = ("num_heads", "pooling")  # options of models
_POOLING = ("token", "mean")  # the values of the latter that models have
_POOLED = {ConViT: "token", Beit: "mean", SwinTransformer: "mean", ResNet: "mean"}  # no option
_OTHER_PARTS = {  # of ViTs in timm and big_vision, by the arrays that they have there
    r"/(ls[12]/gamma|gamma_[12])$": "layer scale",
    r"/(q_norm|k_norm)/": "norms of queries and keys",
    r"^params/norm_pre/": "a norm before its blocks",
    r"^params/fc_norm/": "its last norm behind the pooling",
    r"^params/reg_token$": "registers",
    r"^params/(attn_pool|MAPHead_0)/": "attention in place of the pooling",
}


def describe(
    fit: Fit,
    model: nn.Module,
    *,
    file: ArrayFile,
    theirs: Mapping[str, Shape],
    ours: Mapping[str, Shape],
    options: Mapping[str, Any],
) -> str:
    """What is missing, unexpected, of another shape or known to differ; "" where all fits.

    Args:
      fit: what the file has, made to fit where that is allowed.
      model: the model.
      file: the arrays as they lie there.
      theirs, ours: all shapes in the file and of the model, by our paths.
      options: of their model, as far as they are known.
    """
    entries, wanted = fit.entries, fit.wanted
    missing = _in_order(wanted.keys() - entries.keys())
    unexpected = _in_order(entries.keys() - wanted.keys())
    common = _in_order(wanted.keys() & entries.keys())
    misshapen = [path for path in common if entries[path].shape != wanted[path]]
    other = [
        f"{_there(entries[path], file)}{_as_ours(entries[path], file)}, where {path} is "
        f"{wanted[path]}"
        for path in misshapen
    ]
    lines = [
        *_listed("missing", [f"{path} {wanted[path]}" for path in missing]),
        *_listed("unexpected", [_there(entries[path], file) for path in unexpected]),
        *_listed("of another shape", other),
        *_listed(_NO_FLOATS, _no_floats(entries, common, file.dtypes)),
        *_other_options(model, options, keeps_head=bool(heads_in(wanted))),
    ]
    if not lines:
        return ""
    different = [*missing, *unexpected, *misshapen]
    if different:
        lines += [*fit.advice, *_class_token(entries, wanted, model)]
    if len(different) > len(heads_in(different)):
        likely = _likely_model(entries, unexpected, guess_model(theirs), guess_model(ours))
        lines = [*likely, *_channels(guess_channels(theirs), guess_channels(ours)), *lines]
    return "\n  ".join(["does not fit config.model:", *lines])


def _in_order(paths: Iterable[str]) -> list[str]:
    """block_2 before block_10."""
    return sorted(
        paths,
        key=lambda path: [
            (len(part), part) if place % 2 else (0, part)  # as numbers, however long
            for place, part in enumerate(re.split(r"([0-9]+)", path))
        ],
    )


def _there(entry: Entry, file: ArrayFile) -> str:
    """Names and shapes as they are in the file."""
    return " + ".join(f"{shown(name)} {file.shapes[name]}" for name in entry.names)


def _as_ours(entry: Entry, file: ArrayFile) -> str:
    """The shape that its axes in our order, or what is joined, have; "" where that is the same."""
    shapes = [tuple(file.shapes[name]) for name in entry.names]
    return "" if shapes == [entry.shape] else f", here {entry.shape}"


def _listed(what: str, found: list[str]) -> list[str]:
    """One line, or none."""
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return [f"{len(found)} {what}: {', '.join(found[:_LISTED])}{more}"] if found else []


def _no_floats(entries: Entries, paths: Iterable[str], dtypes: Mapping[str, str]) -> list[str]:
    """The names in the file, with their dtypes."""
    names = dict.fromkeys(name for path in paths for name in entries[path].names)
    there = {name: dtypes.get(name, "float32") for name in names}
    return [
        f"{shown(name)} ({shown(dtype)})" for name, dtype in there.items() if dtype not in FLOATS
    ]


def _other_options(model: nn.Module, options: Mapping[str, Any], *, keeps_head: bool) -> list[str]:
    """Options that differ and change the function, though not the shapes."""
    lines = []
    for option in _NOT_IN_SHAPES:
        if option == "pooling" and not keeps_head:  # what a fresh head reads is the model's choice
            continue
        theirs, ours = options.get(option), getattr(model, option, None)
        ours = _POOLED.get(type(model), ours) if option == "pooling" else ours
        if option == "pooling" and theirs is not None and theirs not in _POOLING:
            lines.append(
                f"has global_pool={shown(repr(theirs))}, which no model here has: take other "
                "weights, or set weights_head='fresh' for a head that is trained anew"
            )
        elif theirs is not None and ours is not None and theirs != ours:
            settable = hasattr(model, option)
            fix = f"set model.{option}={theirs!r}" if settable else "take weights of another model"
            lines.append(f"has {option}={theirs!r}, the model {ours!r}: {fix}")
    return lines


def _likely_model(entries: Entries, unexpected: Sequence[str], theirs: str, ours: str) -> list[str]:
    """What else their model is, or is made of, than ours; one line, or none."""
    found = {
        part: entries[path].names[0]
        for pattern, part in _OTHER_PARTS.items()
        for path in reversed(unexpected)
        if re.search(pattern, path)
    }
    if found and not theirs.startswith("beit"):  # which has layer scale here
        parts = ", ".join(f"{part} ({shown(name)})" for part, name in found.items())
        return [f"The file's model has {parts}: no ViT here has that, so take other weights"]
    return [f"It looks like {theirs}: set config.model to it"] if theirs not in ("", ours) else []


def _channels(theirs: int | None, ours: int | None) -> list[str]:
    """One line where images have another number of channels, or none."""
    if theirs is None or ours is None or theirs == ours:
        return []
    return [
        f"The file is for images of {theirs} channel(s), and these have {ours}: take other "
        "weights, or other data"
    ]


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
