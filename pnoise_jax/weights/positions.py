"""Position embeddings on another grid of patches."""

import math

import jax
import numpy as np

from pnoise_jax.weights.arrays import Entry, Shape

Grid = tuple[int, int]


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


def on_grid(entry: Entry, grid: Grid, *, own: int, target: Grid, prefix: int) -> Entry:
    """Position embeddings for another grid.

    The positions of class and distillation token stay as they are; where they have none and the
    model has, they are zero, which is the same function.

    Args:
      entry: (1, positions, dim).
      grid: rows and columns of patches that the positions stand for.
      own: how many positions in front of those are other tokens'.
      target: the model's rows and columns.
      prefix: how many such tokens have a position in the model.
    """
    shape: Shape = (1, prefix + math.prod(target), entry.shape[-1])

    def convert(x: np.ndarray) -> np.ndarray:
        first, patches = x[:, :own], x[:, own:]
        if prefix and not own:
            first = np.zeros_like(x[:, :prefix])
        return np.concatenate([first, resize(patches, grid, target)], axis=1)

    return entry.then(shape, convert)


def resize(x: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Resizes (1, rows * columns, dim) to another grid: as timm's `resample_abs_pos_embed`.

    Bicubic (Keys, a = -1/2), with antialiasing where the grid shrinks.
    """
    if grid == target:
        return x
    features = x.shape[-1]
    table = np.asarray(x, np.float32).reshape(*grid, features)
    resized = jax.image.resize(table, (*target, features), "bicubic", antialias=True)
    return np.asarray(jax.device_get(resized)).reshape(1, -1, features)
