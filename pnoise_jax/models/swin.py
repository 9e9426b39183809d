"""The Swin Transformer (https://arxiv.org/abs/2103.14030), as timm's `swin_transformer`."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise
from pnoise_jax.models import checks, layers
from pnoise_jax.models.windows import Grid, Windows, fill

_norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
_FORBIDDEN = -100.0  # added to the logits of tokens that are no neighbours, as in timm


class Block(nn.Module, kw_only=True):
    """A pre-norm encoder block whose tokens attend within windows of their grid.

    The noise enters the whole sequence, before it is cut into windows.

    Attributes:
      layer: number of this block in the whole model, from 1: how an injection addresses it.
      windows: how the tokens are cut; zeros that fill up a window take part in its attention, as
        in timm.
      num_heads: number of attention heads.
      dropout: rate of the dropout inside attention and MLP.
      drop_path: rate at which stochastic depth leaves out each residual branch.
      train: whether both are on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    windows: Windows
    num_heads: int
    dropout: float = 0.0
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: Any) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape; `taps` are `noise.open_taps`'s."""
        common = {"dropout": self.dropout, "train": self.train, "dtype": self.dtype}
        x = taps(x, layer=self.layer, point="block_input")
        h = _norm(dtype=self.dtype, name="norm1")(x)
        h = taps(h, layer=self.layer, point="attention_input")
        attention = layers.Attention(num_heads=self.num_heads, **common, name="attn")
        h = attention(self.windows.cut(h), self._attention_bias(len(x)))
        h = self.windows.join(h)
        x = x + layers.DropPath(self.drop_path, self.train, name="drop_path1")(h)
        h = _norm(dtype=self.dtype, name="norm2")(x)
        h = layers.Mlp(hidden_dim=4 * x.shape[-1], **common, name="mlp")(h)
        return x + layers.DropPath(self.drop_path, self.train, name="drop_path2")(h)

    def _attention_bias(self, batch: int) -> jax.Array:
        """What the logits are raised by: (1 or batch * windows, heads, tokens, tokens)."""
        height, width = self.windows.size
        shape = ((2 * height - 1) * (2 * width - 1), self.num_heads)
        table = self.param("relative_position_bias_table", layers.normal_init, shape)
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


class SwinTransformer(nn.Module, kw_only=True):
    """Swin Transformer for classification, the same function as timm's `SwinTransformer`.

    A representation is the sequence of all tokens of a stage's grid, row after row, (batch, tokens,
    dim): windows are cut within the blocks. There is no class token, so the noise's "all" tokens
    are its "patch" tokens.

    Attributes:
      num_classes: number of logits.
      image_size: the images' side, or (height, width), in pixels; multiples of `patch_size`.
      patch_size: side of a patch in pixels.
      dim: features of a token in the first stage; they double with each further stage, as 2 x 2
        tokens are merged into one. A multiple of `head_dim`.
      stage_sizes: number of blocks of each stage; blocks are named stage1_block1, …, and an
        injection addresses them by their number from 1, counted over all stages. Every second
        block of a stage shifts its windows by half their size.
      head_dim: features of an attention head, in all stages.
      window_size: side of a window in tokens; a stage whose grid is not larger in a direction has
        windows of the grid's size there, unshifted.
      dropout: rate after the attention's projection and each layer of the MLP: timm's
        `proj_drop_rate`. Draws from the "dropout" stream.
      drop_path: rate of stochastic depth in the last block; it grows evenly from 0 in the first,
        as timm's `drop_path_rate`. Draws from the "dropout" stream.
      remat: recompute each block in the backward pass instead of keeping its activations.
      dtype: dtype of the blocks' computation. Parameters, the final norm and the head, and so
        the logits, are float32.
      injection: where noise enters, and which; None for the plain model.

    Raises:
      ValueError: at construction, if options contradict each other.
    """

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    patch_size: int = 4
    dim: int = 96
    stage_sizes: tuple[int, ...] = (2, 2, 6, 2)
    head_dim: int = 32
    window_size: int = 7
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32
    injection: noise.Injection | None = None

    points = ("image", "block_input", "attention_input")  # where an injection may enter

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(
            num_classes=self.num_classes,
            image_size=self.image_shape,
            patch_size=self.patch_size,
            dim=self.dim,
            stage_sizes=self.stage_sizes,
            head_dim=self.head_dim,
            window_size=self.window_size,
        )
        checks.require_rate(dropout=self.dropout, drop_path=self.drop_path)
        checks.require_whole_patches(self.image_size, self.image_shape, self.patch_size)
        if self.dim % self.head_dim:
            raise ValueError(
                f"dim={self.dim} is not divisible by head_dim={self.head_dim}: the heads share the "
                "features, so change one of them"
            )

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        if isinstance(self.image_size, int):
            return (self.image_size, self.image_size)
        return tuple(self.image_size)

    @property
    def num_layers(self) -> int:
        """Number of layers that an injection can address: the blocks of all stages."""
        return sum(self.stage_sizes)

    @nn.nowrap
    def layer_name(self, layer: int) -> str:
        """Name of the submodule that is this layer, counted from 1; its input is all it reads."""
        stage, block = self._place(layer)
        return f"stage{stage}_block{block}"

    @nn.nowrap
    def attention_grid(self, layer: int) -> Grid:
        """Rows and columns of a window, whose relative positions this layer's table holds."""
        grid = self._grid(self._place(layer)[0])
        return (min(self.window_size, grid[0]), min(self.window_size, grid[1]))

    @nn.nowrap
    def _place(self, layer: int) -> tuple[int, int]:
        """Its stage, and its number there, all from 1."""
        stage, before = 1, 0
        while layer - before > self.stage_sizes[stage - 1]:
            before += self.stage_sizes[stage - 1]
            stage += 1
        return stage, layer - before

    @nn.nowrap
    def _grid(self, stage: int) -> Grid:
        """Rows and columns of the tokens of a stage, from 1."""
        grid = tuple(side // self.patch_size for side in self.image_shape)
        for _ in range(1, stage):
            grid = halved(grid)
        return grid

    @nn.nowrap
    def _windows(self, layer: int) -> Windows:
        """How a layer cuts its tokens."""
        stage, block = self._place(layer)
        grid = self._grid(stage)
        shift = self.window_size // 2 if block % 2 == 0 else 0
        rows, columns = (shift if self.window_size < side else 0 for side in grid)
        return Windows(grid, self.attention_grid(layer), (rows, columns))

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        noise_strength: jax.Array | float | None = None,
        index: jax.Array | None = None,
    ) -> jax.Array:
        """Classifies images.

        Args:
          images: (batch, height, width, channels), float, normalised.
          train: turns on dropout, stochastic depth and the injection's training noise.
          mask: (batch,) bool, True for real examples; only the injection reads it.
          noise_strength: scalar in place of the injection's own strength; may be traced.
          index: (batch,) int32, what each example's random noise is drawn from; by default its
            place in the batch.

        Returns:
          The logits, (batch, num_classes), float32.

        Raises:
          ValueError: if the images are not of the model's size.
        """
        checks.require_images(images, self.image_shape)
        taps = noise.open_taps(
            self,
            self.injection,
            num_layers=self.num_layers,
            train=train,
            mask=mask,
            strength=noise_strength,
            index=index,
            prefix_tokens=0,
        )
        images = taps(images, point="image")

        x = layers.embed_patches(images, patch_size=self.patch_size, dim=self.dim, dtype=self.dtype)
        x = _norm(dtype=self.dtype, name="patch_norm")(x)
        block = nn.remat(Block) if self.remat else Block
        rates = layers.drop_path_rates(self.drop_path, self.num_layers)
        for layer, rate in enumerate(rates, start=1):
            stage, number = self._place(layer)
            if stage > 1 and number == 1:
                merging = PatchMerging(
                    grid=self._grid(stage - 1), dtype=self.dtype, name=f"merge_{stage}"
                )
                x = merging(x)
            x = block(
                layer=layer,
                windows=self._windows(layer),
                num_heads=x.shape[-1] // self.head_dim,
                dropout=self.dropout,
                drop_path=rate,
                train=train,
                dtype=self.dtype,
                name=self.layer_name(layer),
            )(x, taps)

        x = _norm(dtype=jnp.float32, name="norm")(x).mean(axis=1)
        return nn.Dense(self.num_classes, kernel_init=layers.normal_init, name="head")(x)
