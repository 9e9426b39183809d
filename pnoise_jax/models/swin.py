"""The Swin Transformer (https://arxiv.org/abs/2103.14030), as timm's `swin_transformer`."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import noise
from pnoise_jax.models import checks, layers
from pnoise_jax.models.transformer import Transformer

Grid = tuple[int, int]  # rows and columns

_norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
_FORBIDDEN = -100.0  # added to the logits of tokens that are not neighbours, as in timm


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
        (height, width), (rows, columns) = self.grid, self.size
        return -(-height // rows), -(-width // columns)

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
        """Numbers the parts of each window that were not adjacent before the shift.

        As in timm, the last rows and columns are counted from where the zeros end.

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


def fill(x: jax.Array, grid: Grid) -> jax.Array:
    """Fills up x (batch, rows, columns, dim) with zeros to a grid that is not smaller."""
    missing = (grid[0] - x.shape[1], grid[1] - x.shape[2])
    return jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0))) if any(missing) else x


class WindowAttention(layers.Attention, kw_only=True):
    """Self-attention within windows of the tokens' grid, with a bias for each relative position.

    Attributes, beside those of `layers.Attention`:
      windows: how the tokens are cut; zeros that fill up a window take part in its attention, as
        in timm.
    """

    windows: Windows

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, tokens, dim), the tokens of the whole grid, to the same shape."""
        return self.windows.join(self.attend(self.windows.cut(x), self._bias(len(x))))

    def _bias(self, batch: int) -> jax.Array:
        """What the logits are raised by: (1 or batch * windows, heads, tokens, tokens)."""
        height, width = self.windows.size
        shape = ((2 * height - 1) * (2 * width - 1), self.num_heads)
        table = self.param("relative_position_bias_table", layers.normal_init, shape, jnp.float32)
        bias = table[layers.relative_position_index(height, width)].transpose(2, 0, 1)[None]
        if not self.windows.shifted:
            return bias
        regions = jnp.asarray(self.windows.regions())
        apart = regions[:, None, :, None] != regions[:, None, None, :]
        return jnp.tile(bias + jnp.where(apart, _FORBIDDEN, 0.0), (batch, 1, 1, 1))


class PatchMerging(nn.Module, kw_only=True):
    """Joins 2 x 2 tokens into one of twice the features; zeros fill up a grid with odd sides.

    Attributes:
      grid: rows and columns of the tokens that come in.
      dtype: dtype of the computation; parameters are float32.
    """

    grid: Grid
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, tokens, dim) to (batch, about tokens / 4, 2 * dim)."""
        batch, _, dim = x.shape
        rows, columns = halved(self.grid)
        x = fill(x.reshape(batch, *self.grid, dim), (2 * rows, 2 * columns))
        x = x.reshape(batch, rows, 2, columns, 2, dim).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(batch, rows * columns, 4 * dim)
        x = _norm(dtype=self.dtype, name="norm")(x)
        return nn.Dense(
            2 * dim,
            use_bias=False,
            kernel_init=layers.normal_init,
            dtype=self.dtype,
            name="reduction",
        )(x)


def halved(grid: Grid) -> Grid:
    """The grid after merging."""
    return ((grid[0] + 1) // 2, (grid[1] + 1) // 2)


class SwinTransformer(Transformer, kw_only=True):
    """Swin Transformer for classification, the same function as timm's `SwinTransformer`.

    A representation is the sequence of all tokens of a stage's grid, row after row, (batch, tokens,
    dim): windows are cut within the attention. There is no class token, so the noise's "all" tokens
    are its "patch" tokens.

    Takes the attributes of every `Transformer`, and these:

    Attributes:
      dim: features of a token in the first stage; they double with each further stage, as 2 x 2
        tokens are merged into one. A multiple of `head_dim`.
      stage_sizes: number of blocks of each stage; blocks are named stage1_block1, …, and an
        injection addresses them by their number from 1, counted over all stages. Every second
        block of a stage shifts its windows by half their size.
      head_dim: features of an attention head, in all stages.
      window_size: side of a window in tokens; a stage whose grid is not larger in a direction has
        windows of the grid's size there, unshifted.
    """

    patch_size: int = 4
    dim: int = 96
    stage_sizes: tuple[int, ...] = (2, 2, 6, 2)
    head_dim: int = 32
    window_size: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(
            stage_sizes=self.stage_sizes, head_dim=self.head_dim, window_size=self.window_size
        )
        if self.dim % self.head_dim:
            raise ValueError(
                f"dim={self.dim} is not divisible by head_dim={self.head_dim}: the heads share the "
                "features, so change one of them"
            )

    @property
    def num_layers(self) -> int:
        return sum(self.stage_sizes)

    @nn.nowrap
    def layer_name(self, layer: int) -> str:
        return layers.staged_name(layer, self.stage_sizes)

    @nn.nowrap
    def attention_grid(self, layer: int) -> Grid:
        """Rows and columns of a window, whose relative positions this layer's table holds."""
        rows, columns = self._grid(layers.stage_and_number(layer, self.stage_sizes)[0])
        return (min(self.window_size, rows), min(self.window_size, columns))

    @nn.nowrap
    def _grid(self, stage: int) -> Grid:
        """Rows and columns of the tokens of a stage, from 1."""
        grid = self.grid
        for _ in range(1, stage):
            grid = halved(grid)
        return grid

    @nn.nowrap
    def _windows(self, layer: int) -> Windows:
        """How a layer cuts its tokens."""
        stage, block = layers.stage_and_number(layer, self.stage_sizes)
        grid = self._grid(stage)
        shift = self.window_size // 2 if block % 2 == 0 else 0
        rows, columns = (shift if self.window_size < side else 0 for side in grid)
        return Windows(grid, self.attention_grid(layer), (rows, columns))

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        return _norm(dtype=self.dtype, name="patch_norm")(self.embed_patches(images))

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        dim = x.shape[-1]
        attention = functools.partial(
            WindowAttention, windows=self._windows(layer), num_heads=dim // self.head_dim
        )
        block = self.encoder_block(layer, train, attention=attention, mlp_dim=4 * dim, norm=_norm)
        x = block(x, taps)
        stage, number = layers.stage_and_number(layer, self.stage_sizes)
        if number < self.stage_sizes[stage - 1] or stage == len(self.stage_sizes):
            return x
        grid = self._grid(stage)
        return PatchMerging(grid=grid, dtype=self.dtype, name=f"merge_{stage + 1}")(x)

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return layers.normal_init

    @property
    def last_grid(self) -> Grid:
        return self._grid(len(self.stage_sizes))

    @nn.nowrap
    def run_norm(self, x: jax.Array) -> jax.Array:
        return _norm(dtype=jnp.float32, name="norm")(x)

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.run_norm(x).mean(axis=1)
