"""Adapts position embeddings and relative position tables to the model's grid of patches."""

import math

import flax.linen as nn

from pnoise_jax.models import MaxVit, SwinTransformer, SwinTransformerV2, stage_and_number
from pnoise_jax.weights.adapt import resize
from pnoise_jax.weights.adapt.partial_match import PartialMatch
from pnoise_jax.weights.adapt.resize import Grid
from pnoise_jax.weights.formats.array_file import ArrayFile, Shape
from pnoise_jax.weights.infer_model import count_tokens
from pnoise_jax.weights.names.naming import Interpolation
from pnoise_jax.weights.stated_options import image_sides

_POSITIONS = "params/pos_embed"
_TABLE = "attn/relative_position_bias_table"


def adapt_positions(
    match: PartialMatch, file: ArrayFile, model: nn.Module, interpolation: Interpolation
) -> PartialMatch:
    """Resizes position embeddings to the model's grid of patches.

    The file's grid is the one that the file states, or else a square with a position for each
    token. If neither works but the numbers of positions agree, the grids are assumed to be the
    same, as timm and big_vision do, and a note says so. Otherwise the grid is a square without a
    position for the class token.
    """
    entry = match.entry_of_same_rank(_POSITIONS)
    if entry is None or entry.shape[0] != 1:
        return match
    target, number = model.grid, entry.shape[1]
    prefix = match.wanted[_POSITIONS][1] - math.prod(target)
    tokens = _num_prefix_tokens(match, prefix)
    stated = _stated_grid(match, file, number, tokens)
    source = stated or resize.square_grid(number, prefix=tokens)
    same_number = number == match.wanted[_POSITIONS][1]
    if same_number and not stated and (not source or source[1] != tokens):
        other = f", not as {_show(source[0])} without the class token's" if source else ""
        return match.with_note(
            f"{number} positions used unchanged, read as {prefix} + {_show(target)}{other}: the "
            "file does not say which"
        )
    if source is None:
        return match.with_advice(_not_square(entry.names[0], f"{number} positions", target, model))
    if source == (target, prefix):
        return match
    return _resize_positions(match, source, target, prefix, interpolation)


def _resize_positions(
    match: PartialMatch,
    source: tuple[Grid, int],
    target: Grid,
    prefix: int,
    interpolation: Interpolation,
) -> PartialMatch:
    """Resizes from the file's (grid, positions in front) to the model's, with notes."""
    entry, (grid, file_prefix) = match.entries[_POSITIONS], source
    resized = resize.resize_embedding(
        entry,
        grid,
        file_prefix=file_prefix,
        target=target,
        prefix=prefix,
        method=interpolation.method,
        antialias=interpolation.antialias,
    )
    match = match.with_entry(_POSITIONS, resized)
    if grid != target:
        how = "" if interpolation == Interpolation() else f" ({interpolation.method})"
        match = match.with_note(f"position embedding {_show(grid)} → {_show(target)}{how}")
    if prefix and not file_prefix:
        tokens = (
            "class token has no position" if prefix == 1 else "learned tokens have no positions"
        )
        match = match.with_note(f"the {tokens} in the file: set to zero")
    return match


def _num_prefix_tokens(match: PartialMatch, prefix: int) -> int:
    """How many tokens in front of the patches can have a position in the file."""
    if not prefix and any(count_tokens(match.wanted).values()):  # they have no positions
        return 0
    shapes = {path: entry.shape for path, entry in match.entries.items()}
    return sum(count_tokens(shapes).values())


def _stated_grid(
    match: PartialMatch, file: ArrayFile, number: int, tokens: int
) -> tuple[Grid, int] | None:
    """The grid of patches that the file's options state, and the number of positions in front.

    None if the options state no grid, or one that contradicts the number of positions.
    """
    size = image_sides(file.options.get("image_size"))
    kernel = match.entry_of_same_rank("params/patch_embed/kernel")
    if size is None or kernel is None or not all(kernel.shape):
        return None
    grid = (size[0] // kernel.shape[0], size[1] // kernel.shape[1])
    before = number - math.prod(grid)
    return (grid, before) if min(grid) > 0 and before in (0, tokens) else None


def adapt_relative_positions(match: PartialMatch, model: nn.Module) -> PartialMatch:
    """Resizes tables of relative positions, each for a square grid, to the model's grids.

    Swin's tables are for windows; they stay as they are if no single window size explains them all.
    MaxViT's tables are for windows and for grids, and their shapes state rows and columns.
    """
    if isinstance(model, SwinTransformerV2):  # it computes its tables
        return match
    if isinstance(model, MaxVit):
        return _adapt_maxvit(match, model)
    if isinstance(model, SwinTransformer) and (advice := _describe_windows(match, model)):
        return match.with_advice(advice)
    has_advice = False
    for layer in range(1, model.num_layers + 1):
        path = f"params/{model.layer_name(layer)}/{_TABLE}"
        entry = match.entry_of_same_rank(path)
        if entry is None or entry.shape == match.wanted[path]:
            continue
        target = model.attention_grid(layer)
        extra_rows = match.wanted[path][0] - resize.table_rows(target)
        grid = resize.table_grid(entry.shape[0] - extra_rows)
        if grid is not None:
            match = match.with_entry(path, resize.resize_table_entry(entry, grid, target))
            match = match.with_note(f"relative positions {_show(grid)} → {_show(target)}")
        elif not has_advice:  # the advice is the same for all layers
            advice = _not_square(entry.names[0], f"{entry.shape[0]} rows", target, model)
            match, has_advice = match.with_advice(advice), True
    return match


def _adapt_maxvit(match: PartialMatch, model: MaxVit) -> PartialMatch:
    """Resizes MaxViT's tables (heads, 2 * rows - 1, 2 * columns - 1)."""
    for layer in range(1, model.num_layers + 1):
        for part in ("attn_block", "attn_grid"):
            path = f"params/{model.layer_name(layer)}/{part}/{_TABLE}"
            entry = match.entry_of_same_rank(path)
            if entry is None or entry.shape == match.wanted[path]:
                continue
            if len(entry.shape) != 3 or not all(side % 2 for side in entry.shape[1:]):
                continue  # not a grid's table; the report on mismatches will show it
            grid, target = _table_grid(entry.shape), model.attention_grid(layer)
            match = match.with_entry(path, resize.resize_table_of_heads(entry, grid, target))
            match = match.with_note(f"relative positions {_show(grid)} → {_show(target)}")
    return match


def _table_grid(shape: Shape) -> Grid:
    return (shape[1] + 1) // 2, (shape[2] + 1) // 2


def _describe_windows(match: PartialMatch, model: SwinTransformer) -> str:
    """Explains that a file has windows of several sizes; "" if one size explains them all."""
    grids_of: dict[int, set[Grid]] = {}  # by stage
    for layer in range(1, model.num_layers + 1):
        path = f"params/{model.layer_name(layer)}/{_TABLE}"
        if (entry := match.entry_of_same_rank(path)) is None:
            return ""
        fits = entry.shape == match.wanted[path]
        grid = model.attention_grid(layer) if fits else resize.table_grid(entry.shape[0])
        if grid is None:
            return ""
        stage, _ = stage_and_number(layer, model.stage_sizes)
        grids_of.setdefault(stage, set()).add(grid)
    single = [grid for grids in grids_of.values() if len(grids) == 1 for grid in grids]
    if len(single) == len(grids_of) and resize.have_one_window_size(single):
        return ""
    sizes = (" and ".join(map(_show, sorted(grids_of[stage]))) for stage in sorted(grids_of))
    return (
        f"The file's windows have {', '.join(sizes)} tokens from stage to stage, which no single "
        "window_size produces, so they are not resized: use weights of a Swin with one window size"
    )


def _not_square(name: str, number: str, target: Grid, model: nn.Module) -> str:
    fix = "use weights of a model with a square grid"
    if hasattr(model, "image_size"):
        fix = "set model.image_size to the image size that the weights were trained for"
    return (
        f"{name} has {number}, which is not a square grid, so it cannot be resized to the model's "
        f"{_show(target)}: {fix}"
    )


def _show(grid: Grid) -> str:
    return f"{grid[0]}×{grid[1]}"
