"""Tables of relative position biases for another grid of tokens."""

import math

import numpy as np

from pnoise_jax.weights.arrays import Entry

Grid = tuple[int, int]


def source_grid(rows: int) -> Grid | None:
    """The square grid of tokens whose relative positions are so many; None if there is none."""
    side = math.isqrt(rows)
    return ((side + 1) // 2,) * 2 if side * side == rows and side % 2 else None


def on_grid(entry: Entry, grid: Grid, target: Grid) -> Entry:
    """A table for another grid.

    Args:
      entry: (relative positions + others, heads); the others, such as BEiT's of the class token,
        stand last and stay.
      grid: rows and columns of tokens that the table is for.
      target: the model's.
    """
    old, new = count(grid), count(target)
    shape = (new + entry.shape[0] - old, entry.shape[1])

    def convert(x: np.ndarray) -> np.ndarray:
        return np.concatenate([resize(x[:old], grid, target), x[old:]])

    return entry.then(shape, convert)


def count(grid: Grid) -> int:
    """How many relative positions two tokens of a grid can have."""
    return math.prod(2 * side - 1 for side in grid)


def resize(x: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
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
