"""Windows: how a grid of tokens is cut into parts, within which attention stays."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax.models.parts.attention import Attention

Grid = tuple[int, int]  # rows and columns


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a grid of tokens is cut into windows.

    If the windows do not divide the grid, the last ones are padded with zeros, as in timm.

    Attributes:
      grid: rows and columns of the tokens.
      size: rows and columns of a window.
      shift: by how many rows and columns the grid is rolled before it is cut.
    """

    grid: Grid
    size: Grid
    shift: Grid = (0, 0)

    @property
    def count(self) -> Grid:
        """Rows and columns of windows."""
        (height, width), (rows, columns) = self.grid, self.size
        return -(-height // rows), -(-width // columns)

    @property
    def shifted(self) -> bool:
        """Whether there is a shift in either direction."""
        return any(self.shift)

    def cut(self, x: jax.Array) -> jax.Array:
        """Cuts (batch, tokens, dim) into (batch * windows, tokens of a window, dim)."""
        batch, _, dim = x.shape
        x = x.reshape(batch, *self.grid, dim)
        if self.shifted:
            x = jnp.roll(x, (-self.shift[0], -self.shift[1]), axis=(1, 2))
        (rows, columns), (height, width) = self.count, self.size
        x = fill(x, (rows * height, columns * width))
        x = x.reshape(batch, rows, height, columns, width, dim).swapaxes(2, 3)
        return x.reshape(-1, height * width, dim)

    def join(self, x: jax.Array) -> jax.Array:
        """Undoes `cut`."""
        (rows, columns), (height, width) = self.count, self.size
        x = x.reshape(-1, rows, columns, height, width, x.shape[-1]).swapaxes(2, 3)
        x = x.reshape(-1, rows * height, columns * width, x.shape[-1])
        x = x[:, : self.grid[0], : self.grid[1]]
        if self.shifted:
            x = jnp.roll(x, self.shift, axis=(1, 2))
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def regions(self) -> np.ndarray:
        """Numbers the parts of each window that were not adjacent before the shift.

        As in timm, the last rows and columns are counted from the end of the padding.

        Returns:
          (windows, tokens of a window) int; tokens with different numbers are not neighbours.
        """
        rows, columns = (
            np.arange(count * size) >= count * size - shift
            for count, size, shift in zip(self.count, self.size, self.shift, strict=True)
        )
        number = 2 * rows[:, None] + columns
        (rows, columns), (height, width) = self.count, self.size
        return (
            number.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(-1, height * width)
        )


@dataclasses.dataclass(frozen=True)
class SpreadWindows(Windows):
    """Windows of tokens at equal distances over the whole grid: MaxViT's grid attention.

    `Windows` of the same size would group neighbours; these group the tokens whose row and column
    have the same remainders modulo `count`. The windows must divide the grid, without a shift.
    """

    def cut(self, x: jax.Array) -> jax.Array:
        """Cuts (batch, tokens, dim) into (batch * windows, tokens of a window, dim)."""
        (rows, columns), (height, width) = self.count, self.size
        x = x.reshape(-1, height, rows, width, columns, x.shape[-1]).transpose(0, 2, 4, 1, 3, 5)
        return x.reshape(-1, height * width, x.shape[-1])

    def join(self, x: jax.Array) -> jax.Array:
        """Undoes `cut`."""
        (rows, columns), (height, width) = self.count, self.size
        x = x.reshape(-1, rows, columns, height, width, x.shape[-1]).transpose(0, 3, 1, 4, 2, 5)
        return x.reshape(x.shape[0], -1, x.shape[-1])


def fill(x: jax.Array, grid: Grid) -> jax.Array:
    """Pads x (batch, rows, columns, dim) with zeros to a grid that is not smaller."""
    missing = (grid[0] - x.shape[1], grid[1] - x.shape[2])
    return jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0))) if any(missing) else x


def grid_of(x: jax.Array) -> Grid:
    """Rows and columns of a map (batch, rows, columns, dim)."""
    return x.shape[1], x.shape[2]


def halved(grid: Grid) -> Grid:
    """The grid after merging 2 x 2 tokens."""
    return ((grid[0] + 1) // 2, (grid[1] + 1) // 2)


class WindowAttention(Attention, kw_only=True):
    """Self-attention within windows of the tokens' grid.

    Zeros that pad a window take part in its attention, unmasked, as in timm.

    Attributes, in addition to those of `Attention`:
      windows: how the tokens are cut.
    """

    windows: Windows

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, the tokens of the whole grid in one axis or in two, to the same shape.

        Args:
          x: (batch, tokens, dim) or (batch, rows, columns, dim).
        """
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        attended = self.attend(self.windows.cut(tokens), self.bias(x.shape[0]))
        return self.windows.join(attended).reshape(x.shape)

    def bias(self, batch: int) -> jax.Array | None:
        """The bias of the logits, (1 or batch * windows, heads, tokens, tokens), or None."""
        return None
