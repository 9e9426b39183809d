"""Matches the weights of a file with the arrays of a model; reads nothing but names and shapes."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

from pnoise_jax.weights import google_names, likeness, positions, torch_names
from pnoise_jax.weights.arrays import ArrayFile, Entries, Entry, Shape, read_all
from pnoise_jax.weights.files import open_file

HEADS = ("auto", "keep", "fresh")
_HEAD = "params/head/"
_PRE_LOGITS = "params/pre_logits/"  # the original ViT's layer before the head, and part of it
_POSITIONS = "params/pos_embed"
_LISTED = 3  # arrays of a kind in an error


@dataclasses.dataclass(frozen=True)
class Naming:
    """A way in which files name a family's arrays.

    Attributes:
      title: whose, for the reader.
      recognises: whether these names and shapes are such.
      entries: the arrays by our paths; those that we lack keep a name of their own.
      num_heads: of its attention, where shapes tell; else None.
    """

    title: str
    recognises: Callable[[Mapping[str, Shape]], bool]
    entries: Callable[[Mapping[str, Shape]], Entries]
    num_heads: Callable[[Mapping[str, Shape]], int | None] = lambda shapes: None


# A further family or format adds a line.
_NAMINGS = (
    Naming("timm's ViT", torch_names.is_vit, torch_names.vit_entries),
    Naming("timm's ResNet", torch_names.is_resnet, torch_names.resnet_entries),
    Naming("Google's ViT", google_names.is_vit, google_names.vit_entries, google_names.num_heads),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Weights that fit a model, still in their file.

    Attributes:
      file: where they are.
      entries: what is taken, by our paths, such as "params/head/bias".
      total: how many arrays the model has.
      notes: what was done to make them fit.
    """

    file: ArrayFile
    entries: Entries
    total: int
    notes: tuple[str, ...]

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """One array after the other, float32: (our path, array).

        Raises:
          ValueError, OSError: the file cannot be read.
        """
        try:
            yield from read_all(self.file, self.entries)
        except ValueError as error:
            raise ValueError(f"{_named(self.file.path)}: {error}") from None

    def describe(self) -> str:
        """One line: how many arrays, from where, and what was done to make them fit."""
        taken = f"{len(self.entries)} of {self.total} arrays from {self.file.path}"
        return "; ".join([f"weights: {taken} ({self.file.title})", *self.notes])


def match(
    path: str | os.PathLike, model: nn.Module, variables: Mapping[str, Any], *, head: str = "keep"
) -> Weights:
    """Finds in a file what a model needs.

    Position embeddings are taken to the model's grid of patches. All else must be there and fit,
    but for the head.

    Args:
      path: an npz of Google's ViT, a safetensors file of timm's ViT or ResNet (or torchvision's
        ResNet), or a work directory or checkpoint of ours, of which the average is taken where
        there is one. The content says which.
      model: the model.
      variables: its collections as `model.init` gives them, arrays or their shapes.
      head: "keep" the file's; "fresh", as the model initialises it, which is what timm does
        (big_vision begins with zeros); "auto" keeps it where it has as many classes.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read, or its arrays do not fit: which, and whose model it may be.
    """
    path = Path(path).expanduser()
    try:
        file = open_file(path)
        title, entries, num_heads = _name(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{_named(path)} does not exist") from None
    except ValueError as error:
        raise ValueError(f"{_named(path)} {error}") from None
    wanted = {
        "/".join(key): tuple(leaf.shape)
        for key, leaf in traverse_util.flatten_dict(dict(variables)).items()
    }
    theirs = {path: entry.shape for path, entry in entries.items()}
    notes = [] if file.kind == "run" else [title]
    notes += _fit_head(file, entries, wanted, head)
    notes += _fit_positions(file, entries, wanted, model)
    fresh = {path for path in wanted if path.startswith(_HEAD) and path not in entries}
    _require_match(file, entries, {k: v for k, v in wanted.items() if k not in fresh}, theirs)
    ours = getattr(model, "num_heads", None)
    if num_heads not in (None, ours):  # the shapes of ours are the same for any
        raise ValueError(
            f"{_named(path)} has {num_heads} attention heads, the model {ours}: set "
            f"model.num_heads={num_heads}"
        )
    return Weights(file, entries, len(wanted), tuple(notes))


def _name(file: ArrayFile) -> tuple[str, Entries, int | None]:
    """Whose names these are, the arrays by ours, and the number of heads where it is known."""
    if file.kind == "run":
        ours = {name: Entry((name,), shape, lambda x: x) for name, shape in file.shapes.items()}
        return "ours", ours, file.num_heads
    for naming in _NAMINGS:
        if naming.recognises(file.shapes):
            return naming.title, naming.entries(file.shapes), naming.num_heads(file.shapes)
    some = ", ".join(sorted(file.shapes)[:_LISTED])
    raise ValueError(
        f"has {len(file.shapes)} arrays ({some}, …) and none of the namings known here: give "
        f"{', '.join(naming.title for naming in _NAMINGS)}, or a work directory of ours"
    )


def _fit_head(
    file: ArrayFile, entries: Entries, wanted: Mapping[str, Shape], head: str
) -> list[str]:
    """Leaves out a head that is not to be taken; says what became of it."""
    if head not in HEADS:
        raise ValueError(f"weights_head={head!r}: choose one of {', '.join(HEADS)}")
    bias = entries.get(f"{_HEAD}bias")
    theirs = bias.shape[0] if bias else None
    (ours,) = wanted[f"{_HEAD}bias"]
    if head == "keep" and theirs != ours:
        raise ValueError(
            f"weights_head='keep': {_named(file.path)} has "
            f"{f'a head of {theirs} classes' if bias else 'no head'}, the data set {ours} classes; "
            "set weights_head='auto' for a fresh one"
        )
    if head != "fresh" and theirs == ours:
        return [f"head kept ({ours} classes)"]
    for path in [path for path in entries if path.startswith((_HEAD, _PRE_LOGITS))]:
        del entries[path]
    before = "none there" if theirs is None else f"{theirs}"
    return [f"head fresh ({before} → {ours} classes)"]


def _fit_positions(
    file: ArrayFile, entries: Entries, wanted: Mapping[str, Shape], model: nn.Module
) -> list[str]:
    """Takes position embeddings to the model's grid; says so."""
    if _POSITIONS not in entries or _POSITIONS not in wanted:
        return []
    entry = entries[_POSITIONS]
    if len(entry.shape) != 3 or entry.shape[1] == wanted[_POSITIONS][1]:
        return []
    prefix = int(model.class_token)
    target = tuple(side // model.patch_size for side in model.image_shape)
    found = positions.source_grid(entry.shape[1], class_token="params/cls_token" in entries)
    if found is None:
        raise ValueError(
            f"{_named(file.path)}: {entry.names[0]} has {entry.shape[1]} positions, which are no "
            f"square grid, so they cannot be taken to the model's {_grid(target)}: set "
            "model.image_size to the one that they were made for"
        )
    grid, own_position = found
    entries[_POSITIONS] = positions.on_grid(
        entry, grid, own_position=own_position, target=target, prefix=prefix
    )
    notes = [f"position embedding {_grid(grid)} → {_grid(target)}"] if grid != target else []
    if prefix and not own_position:
        notes.append("the class token has no position there: zero")
    return notes


def _grid(sides: tuple[int, int]) -> str:
    return f"{sides[0]}×{sides[1]}"


def _require_match(
    file: ArrayFile, entries: Entries, wanted: Mapping[str, Shape], theirs: Mapping[str, Shape]
) -> None:
    """Raises ValueError with all that is missing, unexpected, or of another shape."""
    missing = sorted(wanted.keys() - entries.keys())
    unexpected = [" + ".join(entries[k].names) for k in sorted(entries.keys() - wanted.keys())]
    misshapen = [
        f"{' + '.join(entries[k].names)} {entries[k].shape}, where {k} is {wanted[k]}"
        for k in sorted(wanted.keys() & entries.keys())
        if entries[k].shape != wanted[k]
    ]
    problems = [
        f"{len(found)} {what}: {_some(found)}"
        for what, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if found
    ]
    if not problems:
        return
    model = likeness.describe(theirs)
    hint = f". It looks like {model}: set config.model to it" if model else ""
    raise ValueError(
        f"{_named(file.path)} does not fit config.model. Of its arrays, in our layout, there are "
        f"{'; '.join(problems)}{hint}"
    )


def _some(found: list[str]) -> str:
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(found[:_LISTED]) + more


def _named(path: Path) -> str:
    return f"weights={str(path)!r}"
