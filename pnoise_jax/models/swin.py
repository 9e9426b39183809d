"""The Swin Transformer (https://arxiv.org/abs/2103.14030), equal to timm's `swin_transformer`."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise
from pnoise_jax.models import checks
from pnoise_jax.models.parts import layers, products
from pnoise_jax.models.parts.windows import Grid, WindowAttention, Windows, fill, halved
from pnoise_jax.models.transformer import Transformer

_FORBIDDEN = -100.0  # added to the logits of tokens that are not neighbours, as in timm


class ShiftedWindowAttention(WindowAttention, kw_only=True):
    """Self-attention within windows, with a bias for each relative position.

    Tokens that are neighbours only because the windows were shifted do not attend to each other.
    Zeros that pad a window take part in its attention, as in timm.
    """

    def bias(self, batch: int) -> jax.Array:
        bias = self.table()[layers.relative_position_index(*self.windows.size)]
        bias = bias.transpose(2, 0, 1)[None]
        if not self.windows.shifted:
            return bias
        regions = jnp.asarray(self.windows.regions())
        apart = regions[:, None, :, None] != regions[:, None, None, :]
        return jnp.tile(bias + jnp.where(apart, _FORBIDDEN, 0.0), (batch, 1, 1, 1))

    def table(self) -> jax.Array:
        """The bias of each relative position, (relative positions, heads)."""
        height, width = self.windows.size
        shape = ((2 * height - 1) * (2 * width - 1), self.num_heads)
        return self.param("relative_position_bias_table", layers.normal_init, shape, jnp.float32)


class PatchMerging(nn.Module, kw_only=True):
    """Joins 2 x 2 tokens into one with twice the features; pads odd sides with zeros.

    Attributes:
      grid: rows and columns of the input tokens.
      norm_last: whether the norm comes after the projection instead of before it.
      dtype: dtype of the computation; parameters are float32.
    """

    grid: Grid
    norm_last: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, tokens, dim) to (batch, about tokens / 4, 2 * dim)."""
        batch, _, dim = x.shape
        rows, columns = halved(self.grid)
        x = fill(x.reshape(batch, *self.grid, dim), (2 * rows, 2 * columns))
        x = x.reshape(batch, rows, 2, columns, 2, dim).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(batch, rows * columns, 4 * dim)
        norm = layers.torch_layer_norm(dtype=self.dtype, name="norm")
        reduction = products.dense(
            2 * dim,
            use_bias=False,
            kernel_init=layers.normal_init,
            dtype=self.dtype,
            name="reduction",
        )
        return norm(reduction(x)) if self.norm_last else reduction(norm(x))


class SwinTransformer(layers.Staged, Transformer, kw_only=True):
    """Swin Transformer for classification, the same function as timm's `SwinTransformer`.

    A representation is the sequence of all tokens of a stage's grid, row after row, (batch, tokens,
    dim); windows are cut within the attention. There is no class token, so an injection's tokens
    "all" and "patch" mean the same.

    Has the attributes of every `Transformer`, and these:

    Attributes:
      dim: features of a token in the first stage; they double with each further stage, as 2 x 2
        tokens are merged into one. A multiple of `head_dim`.
      stage_sizes: number of blocks of each stage; blocks are named stage1_block1, …, and an
        injection addresses them by their number from 1, counted over all stages. Every second
        block of a stage shifts its windows by half their size.
      head_dim: features of an attention head, in all stages.
      window_size: side of a window in tokens. In a direction in which a stage's grid is not larger,
        its windows have the grid's size and are not shifted.
    """

    patch_size: int = 4
    dim: int = 96
    stage_sizes: tuple[int, ...] = (2, 2, 6, 2)
    head_dim: int = 32
    window_size: int = 7

    post_norm = False  # whether norms, in blocks and in merging, come last instead of first
    block_norm_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(
            stage_sizes=self.stage_sizes, head_dim=self.head_dim, window_size=self.window_size
        )
        checks.require_whole_heads(self.dim, self.head_dim)

    @nn.nowrap
    def attention_grid(self, layer: int) -> Grid:
        """Rows and columns of a window, whose relative positions this layer's table contains."""
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
        """How a layer cuts its tokens into windows."""
        stage, block = layers.stage_and_number(layer, self.stage_sizes)
        grid = self._grid(stage)
        shift = self.window_size // 2 if block % 2 == 0 else 0
        rows, columns = (shift if self.window_size < side else 0 for side in grid)
        return Windows(grid, self.attention_grid(layer), (rows, columns))

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        return layers.torch_layer_norm(dtype=self.dtype, name="patch_norm")(
            self.embed_patches(images)
        )

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        dim = x.shape[-1]
        attention = functools.partial(
            self.attention_kind(layer), windows=self._windows(layer), num_heads=dim // self.head_dim
        )
        block = self.encoder_block(
            layer,
            train,
            attention=attention,
            mlp_dim=4 * dim,
            norm=functools.partial(layers.torch_layer_norm, **self.block_norm_options),
            post_norm=self.post_norm,
        )
        x = block(x, taps)
        stage, number = layers.stage_and_number(layer, self.stage_sizes)
        if number < self.stage_sizes[stage - 1] or stage == len(self.stage_sizes):
            return x
        merging = PatchMerging(
            grid=self._grid(stage),
            norm_last=self.post_norm,
            dtype=self.dtype,
            name=f"merge_{stage + 1}",
        )
        return merging(x)

    @nn.nowrap
    def attention_kind(self, layer: int) -> Callable[..., nn.Module]:
        """Makes a layer's attention, given the attributes of `ShiftedWindowAttention`."""
        return ShiftedWindowAttention

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return layers.normal_init

    @property
    def last_grid(self) -> Grid:
        return self._grid(len(self.stage_sizes))

    @nn.nowrap
    def run_norm(self, x: jax.Array) -> jax.Array:
        return layers.torch_layer_norm(dtype=jnp.float32, name="norm")(x)

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.run_norm(x).mean(axis=1)
