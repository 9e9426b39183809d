"""Resizes position embeddings and tables of relative position biases to another grid of tokens."""

import math
from collections.abc import Sequence

import jax
import numpy as np

from pnoise_jax.weights.entries import Entry
from pnoise_jax.weights.formats.array_file import Shape

Grid = tuple[int, int]
_MAX_WINDOW = 1024  # tokens on a side; no image has more


def square_grid(positions: int, *, prefix: int) -> tuple[Grid, int] | None:
    """The square grid that a number of positions forms, and the number of positions in front of it.

    Args:
      positions: the number of positions in the file.
      prefix: the number of tokens in front of the patches in the file, such as a class token. In
        big_vision, and in timm with `no_embed_class`, these tokens have no positions.

    Returns:
      None if the positions do not form a square.
    """
    for in_front in (prefix, 0) if prefix else (0,):
        side = math.isqrt(max(positions - in_front, 0))
        if side > 0 and side * side == positions - in_front:
            return (side, side), in_front
    return None


def resize_embedding(
    entry: Entry,
    grid: Grid,
    *,
    file_prefix: int,
    target: Grid,
    prefix: int,
    method: str,
    antialias: bool,
) -> Entry:
    """Resizes position embeddings to another grid.

    The positions of the class and distillation tokens stay as they are. If the file has none for
    them and the model does, they are zero, which computes the same function.

    Args:
      entry: (1, positions, dim).
      grid: rows and columns of patches in the file.
      file_prefix: the number of positions of other tokens in front of the patches in the file.
      target: the model's rows and columns.
      prefix: the same number in the model.
      method, antialias: as in `resize`.
    """
    shape: Shape = (1, prefix + math.prod(target), entry.shape[-1])

    def convert(x: np.ndarray) -> np.ndarray:
        first, patches = x[:, :file_prefix], x[:, file_prefix:]
        if prefix and not file_prefix:
            first = np.zeros_like(x[:, :prefix])
        resized = resize(patches, grid, target, method=method, antialias=antialias)
        return np.concatenate([first, resized], axis=1)

    return entry.then(shape, convert)


def resize(
    x: np.ndarray, grid: Grid, target: Grid, *, method: str = "bicubic", antialias: bool = True
) -> np.ndarray:
    """Resizes (1, rows * columns, dim) to another grid, as timm's `resample_abs_pos_embed` does.

    Args:
      x: the embeddings of the old grid.
      grid, target: rows and columns, old and new.
      method: "bicubic" (Keys, a = -1/2), which timm uses for its own weights, or "bilinear", which
        it uses for Google's.
      antialias: whether to smooth when the grid shrinks. timm does for its own weights, and does
        not for Google's.
    """
    if grid == target:
        return x
    features = x.shape[-1]
    table = np.asarray(x, np.float32).reshape(*grid, features)
    resized = jax.image.resize(table, (*target, features), method, antialias=antialias)
    return np.asarray(jax.device_get(resized)).reshape(1, -1, features)


def table_grid(rows: int) -> Grid | None:
    """The square grid of tokens with this number of relative positions; None if there is none."""
    side = math.isqrt(max(rows, 0))
    tokens = (side + 1) // 2
    return (tokens, tokens) if side * side == rows and side % 2 else None


def have_one_window_size(grids: Sequence[Grid]) -> bool:
    """Whether one window size explains these rows and columns of Swin's windows, stage by stage.

    From stage to stage the grid of tokens halves, rounded up; if a window does not fit into it,
    the whole grid is one window. The size of the first grid is unknown.
    """
    window = max(max(grid) for grid in grids)
    if window > _MAX_WINDOW:
        return False

    def possible(sides: Sequence[int]) -> bool:
        largest = window * 2 ** (len(sides) - 1)  # from there on all windows have the full size
        return any(
            all(
                side == min(window, -(-first // 2**stage))  # rounded up
                for stage, side in enumerate(sides)
            )
            for first in range(1, largest + 1)
        )

    return all(possible(sides) for sides in zip(*grids, strict=True))


def resize_table_entry(entry: Entry, grid: Grid, target: Grid) -> Entry:
    """Resizes a table to another grid.

    Args:
      entry: (relative positions + others, heads); the others, such as the rows for BEiT's class
        token, come last and stay as they are.
      grid: rows and columns of tokens in the file.
      target: rows and columns of tokens in the model.
    """
    old, new = table_rows(grid), table_rows(target)
    shape = (new + entry.shape[0] - old, entry.shape[1])

    def convert(x: np.ndarray) -> np.ndarray:
        return np.concatenate([resize_table(x[:old], grid, target), x[old:]])

    return entry.then(shape, convert)


def resize_table_of_heads(entry: Entry, grid: Grid, target: Grid) -> Entry:
    """Resizes a table with heads first and two axes of relative positions to another grid.

    Args:
      entry: (heads, 2 * rows - 1, 2 * columns - 1).
      grid: rows and columns of tokens in the file.
      target: rows and columns of tokens in the model.
    """
    heads = entry.shape[0]
    shape = (heads, *(2 * side - 1 for side in target))
    return entry.then(
        shape, lambda x: resize_table(x.reshape(heads, -1).T, grid, target).T.reshape(shape)
    )


def table_rows(grid: Grid) -> int:
    """The number of relative positions that two tokens of a grid can have."""
    return math.prod(2 * side - 1 for side in grid)


def resize_table(x: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Resizes (relative positions, heads) as timm's `resize_rel_pos_bias_table` does.

    This is BEiT's method: near positions keep their biases, and the steps between the table's
    positions grow outwards by a constant factor until they span the new grid. Between positions the
    table is interpolated linearly, as in timm; beyond the last one, if the grid shrinks little or
    not at all, it is constant. If the grid shrinks, the table is cut.
    """
    if grid == target:
        return x
    table = np.asarray(x, np.float32).reshape(*(2 * side - 1 for side in grid), x.shape[-1])
    down, right = (_weights(*sides) for sides in zip(grid, target, strict=True))
    return np.einsum("ap,bq,pqh->abh", down, right, table).reshape(-1, x.shape[-1])


def _weights(side: int, target: int) -> np.ndarray:
    """The weight of each old relative position in each new one: (2*target-1, 2*side-1)."""
    positions = _spread(side - 1, target - 1)
    wanted = np.arange(1 - target, target)
    return np.stack([np.interp(wanted, positions, row) for row in np.eye(len(positions))], axis=1)


def _spread(steps: int, reach: int) -> np.ndarray:
    """Positions 0, ±1, ±(1 + q), ±(1 + q + q^2), …: `steps` of them each way, up to `reach`."""
    low, high = 1.01, 1.5  # of q
    while high - low > 1e-6:
        q = (low + high) / 2
        if (q**steps - 1) / (q - 1) > reach:
            high = q
        else:
            low = q
    outwards = np.cumsum(q ** np.arange(steps))
    return np.concatenate([-outwards[::-1], [0.0], outwards])
