"""Reports every reason why the weights of a file do not fit a model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from pnoise_jax import models
from pnoise_jax.weights.adapt.head import head_paths
from pnoise_jax.weights.adapt.partial_match import PartialMatch
from pnoise_jax.weights.entries import Entries, Entry
from pnoise_jax.weights.errors import printable_name
from pnoise_jax.weights.formats.array_file import FLOATS, ArrayFile, Shape
from pnoise_jax.weights.infer_model import infer_channels
from pnoise_jax.weights.likely_model import describe_likely_model
from pnoise_jax.weights.stated_options import options_beyond_arrays

_MAX_LISTED = 20  # arrays per kind of mismatch
_NOT_IN_SHAPES = ("num_heads", "pooling")  # options of models that shapes do not show
_POOLING = ("token", "mean", "mean_then_norm")  # the values of "pooling" that models have
_POOLED: Mapping[type, str] = {  # models without this option
    models.ConViT: "token",
    models.ParallelViT: "map",
    models.Beit: "mean",
    models.SwinTransformer: "mean",
    models.SwinTransformerV2: "mean",
    models.DaViT: "mean",
    models.MaxVit: "mean",
    models.ResNet: "mean",
}


def describe(
    match: PartialMatch,
    model: nn.Module,
    *,
    file: ArrayFile,
    file_shapes: Mapping[str, Shape],
    model_shapes: Mapping[str, Shape],
    options: Mapping[str, Any],
) -> str:
    """Describes what is missing, unexpected, of another shape or known to differ; "" if all fits.

    Args:
      match: the file's arrays, adapted if that is allowed.
      model: the model.
      file: the arrays as they are stored.
      file_shapes, model_shapes: all shapes in the file and the model, by our paths.
      options: the options of the file's model, as far as they are known.
    """
    entries, wanted = match.entries, match.wanted
    missing = _in_order(wanted.keys() - entries.keys())
    unexpected = _in_order(entries.keys() - wanted.keys())
    common = _in_order(wanted.keys() & entries.keys())
    misshapen = [path for path in common if entries[path].shape != wanted[path]]
    lines = [
        *_list("missing", [f"{path} {wanted[path]}" for path in missing]),
        *_list("unexpected", [_stored(entries[path], file) for path in unexpected]),
        *_list("of another shape", [_differs(entries[p], file, p, wanted[p]) for p in misshapen]),
        *_list(
            "not floating-point (save them as float32)",
            _not_floats(entries, common, file.dtypes),
        ),
        *_other_options(model, options, keeps_head=bool(head_paths(wanted))),
    ]
    if not lines:
        return ""
    different = [*missing, *unexpected, *misshapen]
    foreign, hints = "", []
    if len(different) > len(head_paths(different)):
        names = {path: entries[path].names[0] for path in unexpected}
        foreign, likely = describe_likely_model(
            file.shapes, file_shapes, names, model_shapes=model_shapes
        )
        hints = [*filter(None, [likely]), *_channels(file_shapes, model_shapes)]
    if foreign:  # no setting helps
        return "\n  ".join(["does not fit config.model:", foreign, *lines])
    if different:
        lines += [*match.advice, *_class_token(entries, wanted, model)]
    return "\n  ".join(["does not fit config.model:", *hints, *lines])


def _in_order(paths: Iterable[str]) -> list[str]:
    """Sorts paths with numbers in numeric order: block_2 before block_10."""
    return sorted(
        paths,
        key=lambda path: [
            (len(part), part) if place % 2 else (0, part)  # numeric order for any number of digits
            for place, part in enumerate(re.split(r"([0-9]+)", path))
        ],
    )


def _differs(entry: Entry, file: ArrayFile, path: str, wanted: Shape) -> str:
    return f"{_stored(entry, file)}{_converted_shape(entry, file)}, where {path} is {wanted}"


def _stored(entry: Entry, file: ArrayFile) -> str:
    """Names and shapes as stored in the file."""
    return " + ".join(f"{printable_name(name)} {file.shapes[name]}" for name in entry.names)


def _converted_shape(entry: Entry, file: ArrayFile) -> str:
    """The shape with the axes in our order, or joined; "" if it is the stored shape."""
    shapes = [tuple(file.shapes[name]) for name in entry.names]
    return "" if shapes == [entry.shape] else f", here {entry.shape}"


def _list(what: str, items: Sequence[str]) -> list[str]:
    """One line that lists the items, or no line if there are none."""
    more = f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    return [f"{len(items)} {what}: {', '.join(items[:_MAX_LISTED])}{more}"] if items else []


def _not_floats(entries: Entries, paths: Iterable[str], dtypes: Mapping[str, str]) -> list[str]:
    """The names in the file, with their dtypes."""
    names = dict.fromkeys(name for path in paths for name in entries[path].names)
    stored = {name: dtypes.get(name, "float32") for name in names}
    return [
        f"{printable_name(name)} ({printable_name(dtype)})"
        for name, dtype in stored.items()
        if dtype not in FLOATS
    ]


def _other_options(model: nn.Module, options: Mapping[str, Any], *, keeps_head: bool) -> list[str]:
    """One line for each option that differs and changes the function but no shape."""
    lines = []
    beyond_arrays = () if _scales_by_file_windows(model, options) else options_beyond_arrays(model)
    for option in _NOT_IN_SHAPES + beyond_arrays:
        if option == "pooling" and not keeps_head:  # a fresh head works with any pooling
            continue
        theirs, ours = options.get(option), getattr(model, option, None)
        ours = _POOLED.get(type(model), ours) if option == "pooling" else ours
        if option == "pooling" and theirs not in (None, ours, *_POOLING):
            lines.append(
                f"has global_pool={printable_name(repr(theirs))}, which no model here has: use "
                "other weights, or set weights_head='fresh' to train a new head"
            )
        elif theirs is not None and ours is not None and _as_tuple(theirs) != _as_tuple(ours):
            settable = hasattr(model, option)
            fix = f"set model.{option}={theirs!r}" if settable else "use weights of another model"
            lines.append(f"has {option}={theirs!r}, the model {ours!r}: {fix}")
    return lines


def _as_tuple(value: Any) -> Any:
    """Turns a list, from JSON, into a tuple, as in our options."""
    return tuple(value) if isinstance(value, list) else value


def _scales_by_file_windows(model: nn.Module, options: Mapping[str, Any]) -> bool:
    """Whether a Swin V2 has other windows than the file but scales distances by the file's."""
    sizes = getattr(model, "pretrained_window_sizes", ())
    return bool(sizes) and sizes[0] == options.get("window_size") != model.window_size


def _channels(file_shapes: Mapping[str, Shape], model_shapes: Mapping[str, Shape]) -> list[str]:
    """One line if the file is for images with another number of channels, or no line."""
    theirs, ours = infer_channels(file_shapes), infer_channels(model_shapes)
    if theirs is None or ours is None or theirs == ours:
        return []
    return [
        f"The file is for images with {theirs} channel(s), and the data has {ours}: use other "
        "weights or other data"
    ]


def _class_token(entries: Entries, wanted: Mapping[str, Shape], model: nn.Module) -> list[str]:
    """One line that says what to set if only one side has a class token; else no line."""
    theirs, ours = ("params/cls_token" in paths for paths in (entries, wanted))
    is_transformer = any(path.startswith("params/block_") for path in entries)
    if theirs == ours or not hasattr(model, "class_token") or not is_transformer:
        return []
    if theirs:
        return [
            "The file has a class token and the model has none: set model.class_token=True, and "
            "model.pooling='token' if the head reads it"
        ]
    return [
        "The file has no class token and the model has one: set model.class_token=False and "
        "model.pooling='mean'"
    ]
