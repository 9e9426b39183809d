"""MaxViT (https://arxiv.org/abs/2204.01697), equal to timm's `maxvit_…_tf_…`."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise
from pnoise_jax.models import checks
from pnoise_jax.models.classifier import Classifier
from pnoise_jax.models.parts import convolutions, layers
from pnoise_jax.models.parts.windows import (
    Grid,
    SpreadWindows,
    WindowAttention,
    Windows,
    fill,
    grid_of,
    halved,
)

_STRIDE = 32  # image pixels per token of the last of four stages, and per token of a window's side
_gelu = functools.partial(nn.gelu, approximate=True)
_xavier = nn.initializers.xavier_uniform()
_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# fan_out of one group; JAX would count all channels.
_depthwise_init = nn.initializers.normal((2 / 9) ** 0.5)
_dense_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default


def _pointwise(features: int, **options: Any) -> nn.Conv:
    """A 1x1 convolution."""
    convolve = convolutions.pointwise
    return nn.Conv(
        features, (1, 1), kernel_init=_conv_init, conv_general_dilated=convolve, **options
    )


class RelativeAttention(WindowAttention, kw_only=True):
    """Self-attention within windows, with a bias for each position of a key relative to a query."""

    def bias(self, batch: int) -> jax.Array:
        height, width = self.windows.size
        shape = (self.num_heads, 2 * height - 1, 2 * width - 1)
        table = self.param("relative_position_bias_table", layers.normal_init, shape, jnp.float32)
        # The transpose goes from the query to the key; Swin goes from the key to the query.
        index = layers.relative_position_index(height, width).T
        return table.reshape(self.num_heads, -1)[:, index][None]


class SqueezeExcitation(nn.Module, kw_only=True):
    """Scales the channels of a map by factors computed from the map's mean.

    Attributes:
      hidden_dim: features between its two layers.
      dtype: dtype of the computation; parameters are float32.
    """

    hidden_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, rows, columns, channels) to the same shape."""
        h = x.mean(axis=(1, 2), keepdims=True)
        h = nn.silu(_pointwise(self.hidden_dim, dtype=self.dtype, name="fc1")(h))
        return x * nn.sigmoid(_pointwise(x.shape[-1], dtype=self.dtype, name="fc2")(h))


class MbConv(nn.Module, kw_only=True):
    """An inverted residual block that begins with a norm: 1x1, depthwise 3x3, 1x1.

    Attributes:
      dim: output features; inside the block there are four times as many.
      stride: 2 halves the map.
      norm: makes a batch norm, given its name.
      drop_path: rate at which stochastic depth leaves out the residual branch.
      train: whether it is on.
      dtype: dtype of the computation; parameters are float32.
    """

    dim: int
    stride: int
    norm: Callable[..., nn.Module]
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, rows, columns, features) to (batch, rows', columns', dim)."""
        hidden = 4 * self.dim
        shortcut = self._shorten(x)
        h = self.norm(name="pre_norm")(x)
        h = _pointwise(hidden, use_bias=False, dtype=self.dtype, name="conv1_1x1")(h)
        h = _gelu(self.norm(name="norm1")(h))
        h = nn.Conv(
            hidden,
            (3, 3),
            strides=(self.stride, self.stride),
            padding="SAME",
            feature_group_count=hidden,
            use_bias=False,
            kernel_init=_depthwise_init,
            conv_general_dilated=convolutions.depthwise,
            dtype=self.dtype,
            name="conv2_kxk",
        )(h)
        h = _gelu(self.norm(name="norm2")(h))
        h = SqueezeExcitation(hidden_dim=self.dim // 4, dtype=self.dtype, name="se")(h)
        h = _pointwise(self.dim, dtype=self.dtype, name="conv3_1x1")(h)
        return layers.DropPath(self.drop_path, self.train, name="drop_path")(h) + shortcut

    def _shorten(self, x: jax.Array) -> jax.Array:
        """The shortcut of a block: x itself if it has the output's shape."""
        if self.stride == 2:
            (rows, columns), dim = halved(grid_of(x)), x.shape[-1]
            x = fill(x, (2 * rows, 2 * columns)).reshape(x.shape[0], rows, 2, columns, 2, dim)
            x = x.mean(axis=(2, 4))
        if x.shape[-1] == self.dim:
            return x
        return _pointwise(self.dim, dtype=self.dtype, name="shortcut_expand")(x)


class MaxVitBlock(nn.Module, kw_only=True):
    """A convolution block, attention within windows, and attention over a grid.

    Attributes:
      layer: number of this block in the whole model, from 1, by which an injection addresses it.
      dim: output features; a multiple of `head_dim`.
      stride: 2 halves the map in the convolution block.
      window: rows and columns of a window, and of the grid.
      head_dim: features of an attention head.
      norm: makes a batch norm, given its name.
      drop_path: rate at which stochastic depth leaves out each of the five residual branches.
      train: whether it is on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    dim: int
    stride: int
    window: Grid
    head_dim: int
    norm: Callable[..., nn.Module]
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: noise.Taps) -> jax.Array:
        """Maps x (batch, rows, columns, features) to (batch, rows', columns', dim)."""
        common = {"drop_path": self.drop_path, "train": self.train, "dtype": self.dtype}
        x = taps(x, layer=self.layer, point="block_input")
        x = MbConv(dim=self.dim, stride=self.stride, norm=self.norm, **common, name="conv")(x)
        for cut, name in ((Windows, "attn_block"), (SpreadWindows, "attn_grid")):
            x = layers.Block(
                layer=self.layer,
                attention=functools.partial(
                    RelativeAttention,
                    windows=cut(grid_of(x), self.window),
                    num_heads=self.dim // self.head_dim,
                    qkv_init=_xavier,
                    proj_init=_xavier,
                ),
                mlp_dim=4 * self.dim,
                mlp=functools.partial(
                    layers.Mlp, in_init=_xavier, out_init=_xavier, activation=_gelu
                ),
                norm=layers.torch_layer_norm,
                points=("attention_input",) if cut is Windows else (),
                **common,
                name=name,
            )(x, taps)
        return x


class MaxVit(layers.Staged, Classifier, kw_only=True):
    """MaxViT for classification, the same function as timm's `MaxxVit` with its `_tf_` settings.

    In training it updates the collection "batch_stats", as `ResNet` does, and padded examples count
    in its batch norms, whatever the mask says. A representation is a map, (batch, rows, columns,
    dim). There is no class token, so an injection's tokens "all" and "patch" mean the same.

    An injection addresses the blocks by their number from 1, counted over all stages. A block has
    three parts. "block_input" is the input of the first, the convolution block, before the shortcut
    branches off; "attention_input" is the output of the first norm of the second, the attention
    within windows. The third, the grid attention, has no point.

    Has the attributes of every `Classifier`, and these:

    Attributes:
      image_size: the images' side, or (height, width), in pixels. The side of a window, and of the
        grid, is a 32nd of it in tokens, in all stages, and must divide the map of each stage. For
        multiples of 32 it does.
      dim: features of the first stage; they double with each further stage. A multiple of
        `head_dim`.
      stem_dim: features of the stem.
      stage_sizes: number of blocks of each stage; the first block of a stage halves the map. Blocks
        are named stage1_block1, ….
      head_dim: features of an attention head, in all stages.
      axis_name: axis of `shard_map` or `pmap` over which batch norms share their statistics; under
        `jit` they use those of the global batch without it.
    """

    image_size: int | tuple[int, int] = 224
    dim: int = 64
    stem_dim: int = 64
    stage_sizes: tuple[int, ...] = (2, 2, 5, 2)
    head_dim: int = 32
    axis_name: str | None = None

    points = ("image", "block_input", "attention_input")

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(
            dim=self.dim,
            stem_dim=self.stem_dim,
            stage_sizes=self.stage_sizes,
            head_dim=self.head_dim,
        )
        checks.require_whole_heads(self.dim, self.head_dim)
        self._require_whole_windows()

    @nn.nowrap
    def _require_whole_windows(self) -> None:
        """Raises ValueError unless windows divide the map of each stage."""
        grid = halved(self.image_shape)
        for stage in range(1, len(self.stage_sizes) + 1):
            grid = halved(grid)
            for side, window_side in zip(grid, self.window, strict=True):
                if not window_side or side % window_side:
                    raise ValueError(
                        f"image_size={self.image_size!r}: windows of {self.window[0]} x "
                        f"{self.window[1]} tokens (image_size // 32) do not divide the "
                        f"{grid[0]} x {grid[1]} tokens of stage {stage}: give multiples of 32, "
                        "such as 224, 384 or 512"
                    )

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return checks.image_shape(self.image_size)

    @property
    def window(self) -> Grid:
        """Rows and columns of a window, and of the grid, in tokens."""
        height, width = self.image_shape
        return height // _STRIDE, width // _STRIDE

    @nn.nowrap
    def attention_grid(self, layer: int) -> Grid:
        """Rows and columns of a window, whose relative positions this layer's tables contain."""
        return self.window

    @nn.nowrap
    def _norm(self, train: bool) -> Callable[..., nn.Module]:
        """Makes a batch norm, given its name."""
        return convolutions.batch_norm(
            train=train, epsilon=1e-3, axis_name=self.axis_name, dtype=self.dtype
        )

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        conv = functools.partial(
            nn.Conv,
            self.stem_dim,
            (3, 3),
            kernel_init=_conv_init,
            conv_general_dilated=convolutions.of_images,
            dtype=self.dtype,
        )
        x = conv(strides=(2, 2), name="conv1")(images)
        return conv(name="conv2")(_gelu(self._norm(train)(name="bn1")(x)))

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        block = nn.remat(MaxVitBlock) if self.remat else MaxVitBlock
        stage, number = layers.stage_and_number(layer, self.stage_sizes)
        return block(
            layer=layer,
            dim=self.dim * 2 ** (stage - 1),
            stride=2 if number == 1 else 1,
            window=self.window,
            head_dim=self.head_dim,
            norm=self._norm(train),
            drop_path=layers.drop_path_rates(self.drop_path, self.num_layers)[layer - 1],
            train=train,
            dtype=self.dtype,
            name=self.layer_name(layer),
        )(x, taps)

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return _dense_init

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = layers.torch_layer_norm(name="fc_norm")(x.astype(jnp.float32).mean(axis=(1, 2)))
        return nn.tanh(nn.Dense(x.shape[-1], kernel_init=_dense_init, name="pre_head")(x))
