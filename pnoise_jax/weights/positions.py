"""Position embeddings on another grid of patches."""

import math

import jax
import numpy as np

from pnoise_jax.weights.arrays import Entry, Shape

Grid = tuple[int, int]


def source_grid(tokens: int, *, class_token: bool) -> tuple[Grid, bool] | None:
    """The square grid of so many positions, and whether the class token has the first of them.

    Args:
      tokens: positions in the file.
      class_token: whether the file has a class token; in big_vision, and in timm with
        `no_embed_class`, it has no position even so.

    Returns:
      None if the positions are no square.
    """
    for own_position in (True, False) if class_token else (False,):
        side = math.isqrt(tokens - own_position)
        if side > 0 and side * side == tokens - own_position:
            return (side, side), own_position
    return None


def on_grid(entry: Entry, grid: Grid, *, own_position: bool, target: Grid, prefix: int) -> Entry:
    """Position embeddings for another grid.

    The class token's position stays as it is; where it has none and the model has one, it is zero,
    which is the same function.

    Args:
      entry: (1, positions, dim), with one for the class token or without.
      grid: rows and columns of patches that the positions stand for.
      own_position: whether the first position is the class token's.
      target: the model's rows and columns.
      prefix: how many class tokens the model has, 0 or 1.
    """
    shape: Shape = (1, prefix + math.prod(target), entry.shape[-1])

    def convert(x: np.ndarray) -> np.ndarray:
        first, patches = x[:, : int(own_position)], x[:, int(own_position) :]
        if prefix and not own_position:
            first = np.zeros_like(x[:, :1])
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
