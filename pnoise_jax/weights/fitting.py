"""Makes what a file holds fit a model, where that is allowed: its head, its positions."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import flax.linen as nn

from pnoise_jax.models import SwinTransformer, layers
from pnoise_jax.weights import positions
from pnoise_jax.weights.arrays import ArrayFile, Entries, Entry, Shape
from pnoise_jax.weights.classes import Heads
from pnoise_jax.weights.descriptions import sides

HEADS = ("auto", "keep", "fresh")
_HEADS = ("params/head/", "params/head_dist/")  # the latter of DeiT with a distillation token
_PRE_LOGITS = "params/pre_logits/"  # the original ViT's layer before the head, and part of it
_POSITIONS = "params/pos_embed"
_RELATIVE_POSITIONS = "attn/relative_position_bias_table"


@dataclasses.dataclass(frozen=True)
class Fit:
    """A file's arrays on their way into a model. Each function here gives a new one.

    Attributes:
      entries: what the file has, by our paths.
      wanted: the shapes of what is to be taken from it.
      notes: what was done to make it fit.
      advice: what is to be done where it could not be, which then shows in the shapes.
    """

    entries: Entries
    wanted: Mapping[str, Shape]
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def with_note(self, note: str) -> "Fit":
        """This, and one note more, once."""
        return dataclasses.replace(self, notes=tuple(dict.fromkeys((*self.notes, note))))

    def with_advice(self, advice: str) -> "Fit":
        """This, and one piece of advice more."""
        return dataclasses.replace(self, advice=(*self.advice, advice))

    def with_entry(self, path: str, entry: Entry) -> "Fit":
        """This, with another entry for a path."""
        return dataclasses.replace(self, entries=self.entries | {path: entry})

    def resizable(self, path: str) -> Entry | None:
        """What is there for a path; None if one lacks it, or the numbers of axes differ."""
        entry, wanted = self.entries.get(path), self.wanted.get(path)
        if entry is None or wanted is None or len(entry.shape) != len(wanted):
            return None
        return entry


def heads_in(paths: Iterable[str]) -> list[str]:
    """The arrays of heads."""
    return [path for path in paths if path.startswith(_HEADS)]


def fit_head(fit: Fit, head: str, heads: Heads) -> Fit:
    """Leaves out a head that is not to be taken; one that is has its classes in our order.

    Args:
      fit: all that the file has.
      head: one of HEADS.
      heads: the names of the classes, theirs and ours.

    Raises:
      ValueError: head is none of HEADS, or the model has none; or a head is to be kept, and knows
        other classes.
    """
    if head not in HEADS:
        raise ValueError(f"weights_head={head!r}: choose one of {', '.join(HEADS)}")
    if "params/head/bias" not in fit.wanted:
        raise ValueError(
            "the model has no params/head, into which a file's head would go: give one of "
            "pnoise_jax.models"
        )
    theirs, ours = _classes(fit.entries), fit.wanted["params/head/bias"][0]
    before = [path for path in fit.entries if path.startswith(_PRE_LOGITS)]
    others = heads.others(ours) if head != "fresh" and theirs == ours else ""
    if others and head == "keep":
        raise ValueError(others)
    if head != "fresh" and theirs == ours and not others:
        if before:
            fit = fit.with_advice(
                "The file has a layer before the head (pre_logits), which belongs to it: set "
                "weights_head='fresh' to leave out both"
            )
        order, note = heads.order(ours)
        if order is not None:
            for path in heads_in(fit.entries):
                entry = fit.entries[path]
                reordered = entry.then(entry.shape, lambda x: x[..., order])
                fit = fit.with_entry(path, reordered)
        return fit.with_note(f"head kept ({ours} classes{note})")
    if head == "keep":
        there = "no head" if theirs is None else f"a head of {theirs} classes"
        return fit.with_advice(
            f"The file has {there}, and the model is for {ours}: to train, set "
            "weights_head='auto' for a fresh head where classes differ, or 'fresh' for one in any "
            "case; to evaluate, give data of the file's classes"
        )
    left_out = {*heads_in(fit.entries), *before}
    fit = dataclasses.replace(
        fit,
        entries={path: entry for path, entry in fit.entries.items() if path not in left_out},
        wanted={path: fit.wanted[path] for path in fit.wanted.keys() - set(heads_in(fit.wanted))},
    )
    there = "none there" if theirs is None else theirs
    note = "; those of the file have other names" if others else ""
    return fit.with_note(f"head fresh ({there} → {ours} classes{note})")


def _classes(entries: Entries) -> int | None:
    """Of the head: of its kernel, else of the bias that is left of it; None without a head."""
    paths = (f"{head}{leaf}" for head in _HEADS for leaf in ("kernel", "bias"))
    shapes = (entries[path].shape for path in paths if path in entries)
    return next((shape[-1] for shape in shapes if shape), None)


def fit_positions(fit: Fit, file: ArrayFile, model: nn.Module) -> Fit:
    """Takes position embeddings to the model's grid of patches.

    Theirs is what the file says, else a square with a position for each token. Where that cannot
    be, but their number is the model's, the grids are taken to be the same, as in timm and
    big_vision, and a note says so; else theirs is a square without the class token's.
    """
    entry = fit.resizable(_POSITIONS)
    if entry is None or entry.shape[0] != 1:
        return fit
    target, number = model.grid, entry.shape[1]
    prefix = fit.wanted[_POSITIONS][1] - math.prod(target)
    tokens = _tokens(fit, prefix)
    stated = _stated_grid(fit, file, number, tokens)
    found = stated or positions.source_grid(number, prefix=tokens)
    if number == fit.wanted[_POSITIONS][1] and not stated and (not found or found[1] != tokens):
        other = f" and not as {_grid(found[0])} without the class token's" if found else ""
        return fit.with_note(
            f"{number} positions taken as they are, read as {prefix} + {_grid(target)}{other}: the "
            "file does not say which"
        )
    if found is None:
        return fit.with_advice(_no_square(entry.names[0], f"{number} positions", target))
    grid, own = found
    if (grid, own) == (target, prefix):
        return fit
    method = "bilinear" if file.kind == "npz" else "bicubic"
    moved = positions.on_grid(entry, grid, own=own, target=target, prefix=prefix, method=method)
    fit = fit.with_entry(_POSITIONS, moved)
    if grid != target:
        how = "" if method == "bicubic" else f" ({method})"
        fit = fit.with_note(f"position embedding {_grid(grid)} → {_grid(target)}{how}")
    if prefix and not own:
        fit = fit.with_note("the class token has no position there: zero")
    return fit


def _tokens(fit: Fit, prefix: int) -> int:
    """How many tokens in front of the patches may have a position in the file."""
    if not prefix and "params/cls_token" in fit.wanted:  # ConViT's has none
        return 0
    return sum(f"params/{token}_token" in fit.entries for token in ("cls", "dist"))


def _stated_grid(
    fit: Fit, file: ArrayFile, number: int, tokens: int
) -> tuple[positions.Grid, int] | None:
    """Rows and columns of patches, as the options beside the arrays say, and the positions before.

    None where they say nothing, or what so many positions cannot be.
    """
    size = sides(file.options.get("image_size"))
    kernel = fit.resizable("params/patch_embed/kernel")
    if size is None or kernel is None or not all(kernel.shape):
        return None
    grid = (size[0] // kernel.shape[0], size[1] // kernel.shape[1])
    own = number - math.prod(grid)
    return (grid, own) if min(grid) > 0 and own in (0, tokens) else None


def fit_relative_positions(fit: Fit, model: nn.Module) -> Fit:
    """Takes tables of relative positions, each of a square grid, to the model's grids.

    Swin's are of windows, and stay as they are where no one size of windows explains all of them.
    """
    if isinstance(model, SwinTransformer) and (advice := _different_windows(fit, model)):
        return fit.with_advice(advice)
    advised = False
    for layer in range(1, model.num_layers + 1):
        path = f"params/{model.layer_name(layer)}/{_RELATIVE_POSITIONS}"
        entry = fit.resizable(path)
        if entry is None or entry.shape == fit.wanted[path]:
            continue
        target = model.attention_grid(layer)
        others = fit.wanted[path][0] - positions.table_rows(target)
        grid = positions.table_grid(entry.shape[0] - others)
        if grid is not None:
            fit = fit.with_entry(path, positions.table_on_grid(entry, grid, target))
            fit = fit.with_note(f"relative positions {_grid(grid)} → {_grid(target)}")
        elif not advised:  # the same for all layers
            advice = _no_square(entry.names[0], f"{entry.shape[0]} rows", target)
            fit, advised = fit.with_advice(advice), True
    return fit


def _different_windows(fit: Fit, model: SwinTransformer) -> str:
    """Says that a file has windows of several sizes; "" where one size explains them."""
    found: dict[int, set[positions.Grid]] = {}  # by stage
    for layer in range(1, model.num_layers + 1):
        path = f"params/{model.layer_name(layer)}/{_RELATIVE_POSITIONS}"
        if (entry := fit.resizable(path)) is None:
            return ""
        fits = entry.shape == fit.wanted[path]
        grid = model.attention_grid(layer) if fits else positions.table_grid(entry.shape[0])
        if grid is None:
            return ""
        found.setdefault(layers.stage_and_number(layer, model.stage_sizes)[0], set()).add(grid)
    one_each = [grids for grids in found.values() if len(grids) == 1]
    if len(one_each) == len(found) and positions.of_one_window([grid for (grid,) in one_each]):
        return ""
    listed = ", ".join(" and ".join(map(_grid, sorted(found[stage]))) for stage in sorted(found))
    return (
        f"The file's windows are of {listed} tokens from stage to stage, and one window_size makes "
        "no such, so they are not resized: take weights of a Swin with windows of one size"
    )


def _no_square(name: str, number: str, target: positions.Grid) -> str:
    return (
        f"{name} has {number}, which are no square grid, so they cannot be taken to the model's "
        f"{_grid(target)}: set model.image_size to the one that they were made for"
    )


def _grid(grid: positions.Grid) -> str:
    return f"{grid[0]}×{grid[1]}"
