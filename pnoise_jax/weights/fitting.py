"""Makes what a file holds fit a model, where that is allowed: its head, its positions."""

import math
from collections.abc import Iterable, Mapping

import flax.linen as nn

from pnoise_jax.weights import positions, relative_positions
from pnoise_jax.weights.arrays import ArrayFile, Entries, Shape

HEADS = ("auto", "keep", "fresh")
_HEAD = "params/head/"
_HEADS = (_HEAD, "params/head_dist/")  # of DeiT with a distillation token
_PRE_LOGITS = "params/pre_logits/"  # the original ViT's layer before the head, and part of it
_POSITIONS = "params/pos_embed"
_RELATIVE_POSITIONS = "attn/relative_position_bias_table"

# Each function changes entries, and returns two lists of texts: what was done, and what is to be
# done where it could not be, which then shows in the shapes.
Texts = tuple[list[str], list[str]]


def fit_head(entries: Entries, wanted: Mapping[str, Shape], head: str) -> Texts:
    """Leaves out a head that is not to be taken.

    Raises:
      ValueError: head is none of HEADS.
    """
    if head not in HEADS:
        raise ValueError(f"weights_head={head!r}: choose one of {', '.join(HEADS)}")
    bias = entries.get(f"{_HEAD}bias")
    theirs = bias.shape[0] if bias else None
    (ours,) = wanted[f"{_HEAD}bias"]
    if head != "fresh" and theirs == ours:
        return [f"head kept ({ours} classes)"], []
    if head == "keep":
        there = "no head" if theirs is None else f"a head of {theirs} classes"
        return [], [
            f"The file has {there}, and the model is for {ours}: to train, set "
            "weights_head='auto' for a fresh head where classes differ, or 'fresh' for one in any "
            "case; to evaluate, give data of the file's classes"
        ]
    for path in heads_in(entries) + [path for path in entries if path.startswith(_PRE_LOGITS)]:
        del entries[path]
    before = "none there" if theirs is None else f"{theirs}"
    return [f"head fresh ({before} → {ours} classes)"], []


def heads_in(paths: Iterable[str]) -> list[str]:
    """The arrays of heads."""
    return [path for path in paths if path.startswith(_HEADS)]


def fit_positions(
    file: ArrayFile, entries: Entries, wanted: Mapping[str, Shape], model: nn.Module
) -> Texts:
    """Takes position embeddings to the model's grid of patches.

    Theirs is what the file says, else a square. Only where their number is none, and that of the
    model's, are the grids taken to be the same.
    """
    if _POSITIONS not in entries or _POSITIONS not in wanted:
        return [], []
    entry = entries[_POSITIONS]
    if len(entry.shape) != 3:
        return [], []
    target = tuple(side // model.patch_size for side in model.image_shape)
    prefix = wanted[_POSITIONS][1] - math.prod(target)
    tokens = sum(f"params/{token}_token" in entries for token in ("cls", "dist"))
    known = _stated_grid(file, entries)
    if known is not None and 0 <= entry.shape[1] - math.prod(known) <= tokens:
        grid, own = known, entry.shape[1] - math.prod(known)
    else:
        grid, own = positions.source_grid(entry.shape[1], prefix=tokens) or (None, 0)
        # Without a position for every token a square is less likely than the model's own grid.
        if entry.shape[1] == wanted[_POSITIONS][1] and (grid is None or own != tokens):
            return [], []
    if grid is None:
        return [], [_no_square(entry.names[0], f"{entry.shape[1]} positions", target)]
    if (grid, own) == (target, prefix):
        return [], []
    entries[_POSITIONS] = positions.on_grid(entry, grid, own=own, target=target, prefix=prefix)
    notes = [f"position embedding {_grid(grid)} → {_grid(target)}"] if grid != target else []
    if prefix and not own:
        notes.append("the class token has no position there: zero")
    return notes, []


def _stated_grid(file: ArrayFile, entries: Entries) -> positions.Grid | None:
    """Rows and columns of patches, as the options beside the arrays say."""
    size, kernel = file.options.get("image_size"), entries.get("params/patch_embed/kernel")
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2 or kernel is None:
        return None
    return (int(sides[0]) // kernel.shape[0], int(sides[1]) // kernel.shape[0])


def fit_relative_positions(
    entries: Entries, wanted: Mapping[str, Shape], model: nn.Module
) -> Texts:
    """Takes tables of relative positions, each of a square grid, to the model's grids."""
    notes, advice = {}, {}
    for layer in range(1, model.num_layers + 1):
        path = f"params/{model.layer_name(layer)}/{_RELATIVE_POSITIONS}"
        if path not in entries or path not in wanted or entries[path].shape == wanted[path]:
            continue
        entry, target = entries[path], model.attention_grid(layer)
        others = wanted[path][0] - relative_positions.count(target)
        grid = relative_positions.source_grid(entry.shape[0] - others)
        if grid is None:
            advice[_no_square(entry.names[0], f"{entry.shape[0]} rows", target)] = None
            continue
        entries[path] = relative_positions.on_grid(entry, grid, target)
        notes[f"relative positions {_grid(grid)} → {_grid(target)}"] = None
    return list(notes), list(advice)[:1]


def _no_square(name: str, number: str, target: tuple[int, int]) -> str:
    return (
        f"{name} has {number}, which are no square grid, so they cannot be taken to the model's "
        f"{_grid(target)}: set model.image_size to the one that they were made for"
    )


def _grid(sides: tuple[int, int]) -> str:
    return f"{sides[0]}×{sides[1]}"
