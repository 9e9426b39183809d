"""Windows of a grid of tokens, as Swin's blocks cut them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

Grid = tuple[int, int]  # rows and columns


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a grid of tokens is cut into windows.

    Where the windows do not divide the grid, zeros fill up the last ones, as in timm.

    Attributes:
      grid: of the tokens.
      size: of a window.
      shift: by how many rows and columns the grid is rolled before it is cut.
    """

    grid: Grid
    size: Grid
    shift: Grid

    @property
    def count(self) -> Grid:
        """Rows and columns of windows."""
        return tuple(-(-side // size) for side, size in zip(self.grid, self.size, strict=True))

    @property
    def shifted(self) -> bool:
        """Whether there is a shift, in whatever direction."""
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
        """Numbers the parts of each window that the shift brought together from afar.

        As in timm, the last rows and columns are counted from where the zeros end.

        Returns:
          (windows, tokens of a window) int; tokens with other numbers are no neighbours.
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


def fill(x: jax.Array, grid: Grid) -> jax.Array:
    """Fills up x (batch, rows, columns, dim) with zeros to a grid that is not smaller."""
    missing = (grid[0] - x.shape[1], grid[1] - x.shape[2])
    return jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0))) if any(missing) else x
