"""Position embeddings, and tables of relative position biases, on another grid of tokens."""

import math
from collections.abc import Sequence

import jax
import numpy as np

from pnoise_jax.weights.arrays import Entry, Shape

Grid = tuple[int, int]
_LARGEST_WINDOW = 1024  # tokens on a side; no image has more


def source_grid(tokens: int, *, prefix: int) -> tuple[Grid, int] | None:
    """The square grid of so many positions, and how many of the first are no patches'.

    Args:
      tokens: positions in the file.
      prefix: how many tokens the file has in front of the patches, such as a class token; in
        big_vision, and in timm with `no_embed_class`, they have no positions even so.

    Returns:
      None if the positions are no square.
    """
    for own in (prefix, 0) if prefix else (0,):
        side = math.isqrt(max(tokens - own, 0))
        if side > 0 and side * side == tokens - own:
            return (side, side), own
    return None


def on_grid(entry: Entry, grid: Grid, *, own: int, target: Grid, prefix: int, method: str) -> Entry:
    """Position embeddings for another grid.

    The positions of class and distillation token stay as they are; where they have none and the
    model has, they are zero, which is the same function.

    Args:
      entry: (1, positions, dim).
      grid: rows and columns of patches that the positions stand for.
      own: how many positions in front of those are other tokens'.
      target: the model's rows and columns.
      prefix: how many such tokens have a position in the model.
      method: as `resize` takes it.
    """
    shape: Shape = (1, prefix + math.prod(target), entry.shape[-1])

    def convert(x: np.ndarray) -> np.ndarray:
        first, patches = x[:, :own], x[:, own:]
        if prefix and not own:
            first = np.zeros_like(x[:, :prefix])
        return np.concatenate([first, resize(patches, grid, target, method)], axis=1)

    return entry.then(shape, convert)


def resize(x: np.ndarray, grid: Grid, target: Grid, method: str) -> np.ndarray:
    """Resizes (1, rows * columns, dim) to another grid: as timm's `resample_abs_pos_embed`.

    Args:
      x: of the old grid.
      grid, target: rows and columns, old and new.
      method: "bicubic" (Keys, a = -1/2), with antialiasing where the grid shrinks, as timm does
        with its own weights; or "bilinear" without, as it does with Google's.
    """
    if grid == target:
        return x
    features = x.shape[-1]
    table = np.asarray(x, np.float32).reshape(*grid, features)
    resized = jax.image.resize(table, (*target, features), method, antialias=method == "bicubic")
    return np.asarray(jax.device_get(resized)).reshape(1, -1, features)


def table_grid(rows: int) -> Grid | None:
    """The square grid of tokens whose relative positions are so many; None if there is none."""
    side = math.isqrt(max(rows, 0))
    return ((side + 1) // 2,) * 2 if side * side == rows and side % 2 else None


def of_one_window(grids: Sequence[Grid]) -> bool:
    """Whether Swin's windows of one size can be of these rows and columns, stage after stage.

    The tokens' grid is half as large from stage to stage, rounded up, and where a window would not
    fit into it, is one window. How large the first is, nothing says.
    """
    window = max(max(grid) for grid in grids)
    if window > _LARGEST_WINDOW:
        return False

    def possible(sides: Sequence[int]) -> bool:
        largest = window * 2 ** (len(sides) - 1)  # beyond it all windows are whole
        return any(
            all(
                side == min(window, -(-first // 2**stage))  # rounded up
                for stage, side in enumerate(sides)
            )
            for first in range(1, largest + 1)
        )

    return all(possible(sides) for sides in zip(*grids, strict=True))


def table_on_grid(entry: Entry, grid: Grid, target: Grid) -> Entry:
    """A table for another grid.

    Args:
      entry: (relative positions + others, heads); the others, such as BEiT's of the class token,
        stand last and stay.
      grid: rows and columns of tokens that the table is for.
      target: the model's.
    """
    old, new = table_rows(grid), table_rows(target)
    shape = (new + entry.shape[0] - old, entry.shape[1])

    def convert(x: np.ndarray) -> np.ndarray:
        return np.concatenate([resize_table(x[:old], grid, target), x[old:]])

    return entry.then(shape, convert)


def table_rows(grid: Grid) -> int:
    """How many relative positions two tokens of a grid can have."""
    return math.prod(2 * side - 1 for side in grid)


def resize_table(x: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Resizes (relative positions, heads) to another grid: as timm's `resize_rel_pos_bias_table`.

    Which is BEiT's: near positions keep their biases, and the steps between the table's positions
    grow outwards by a constant factor until they span the new grid. Linear between them, as in
    timm; beyond them, where the grid shrinks little or not at all, the last. Where it shrinks, the
    table is cut.
    """
    if grid == target:
        return x
    table = np.asarray(x, np.float32).reshape(*(2 * side - 1 for side in grid), x.shape[-1])
    down, right = (_weights(*sides) for sides in zip(grid, target, strict=True))
    return np.einsum("ap,bq,pqh->abh", down, right, table).reshape(-1, x.shape[-1])


def _weights(side: int, target: int) -> np.ndarray:
    """What each old relative position contributes to each new one: (2*target-1, 2*side-1)."""
    positions = _spread(side - 1, target - 1)
    wanted = np.arange(1 - target, target)
    return np.stack([np.interp(wanted, positions, row) for row in np.eye(len(positions))], axis=1)


def _spread(steps: int, reach: int) -> np.ndarray:
    """Positions 0, ±1, ±(1 + q), ±(1 + q + q^2), …: so many steps each way, up to `reach`."""
    low, high = 1.01, 1.5  # of q
    while high - low > 1e-6:
        q = (low + high) / 2
        if (q**steps - 1) / (q - 1) > reach:
            high = q
        else:
            low = q
    outwards = np.cumsum(q ** np.arange(steps))
    return np.concatenate([-outwards[::-1], [0.0], outwards])
