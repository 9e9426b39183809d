"""DaViT (https://arxiv.org/abs/2204.03645), equal to timm's `davit`."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise
from pnoise_jax.models import checks
from pnoise_jax.models.classifier import Classifier
from pnoise_jax.models.parts import convolutions, layers
from pnoise_jax.models.parts.attention import Attention
from pnoise_jax.models.parts.windows import WindowAttention, Windows, fill, grid_of, halved

_STRIDE = 4  # of the stem


class ChannelAttention(Attention, kw_only=True):
    """Self-attention in which the channels of a head attend to each other, over all tokens.

    As published, and as in the existing weights, keys attend to values and weigh queries.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, rows, columns, dim) to the same shape."""
        return self.attend(x.reshape(x.shape[0], -1, x.shape[-1])).reshape(x.shape)

    def weigh_values(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        bias: jax.Array | None,
        gate: jax.Array | None,
    ) -> jax.Array:
        """The attention itself, (batch, tokens, heads, dim / heads), as in `Attention`.

        Raises:
          ValueError: there is a bias or a gate, which are for attention between tokens.
        """
        if bias is not None or gate is not None:
            raise ValueError("ChannelAttention has no logits of tokens for a bias or a gate")
        scale = jnp.float32(query.shape[-1] ** -0.5)
        logits = jnp.einsum("bthi,bthj->bhij", key, value, preferred_element_type=jnp.float32)
        weights = nn.softmax(scale * logits).astype(self.dtype)
        return jnp.einsum("bhij,bthj->bthi", weights, query)


class PositionEncoding(nn.Module, kw_only=True):
    """Adds a depthwise 3x3 convolution: a position encoding that depends on the input.

    Attributes:
      dtype: dtype of the computation; parameters are float32.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, rows, columns, dim) to the same shape."""
        dim = x.shape[-1]
        return x + nn.Conv(
            dim,
            (3, 3),
            padding=1,
            feature_group_count=dim,
            kernel_init=layers.conv_init,
            conv_general_dilated=convolutions.depthwise,
            dtype=self.dtype,
            name="proj",
        )(x)


class Downsampling(nn.Module, kw_only=True):
    """Joins 2 x 2 tokens into one; a grid with odd sides is padded with zeros.

    Attributes:
      dim: features of an output token.
      dtype: dtype of the computation; parameters are float32.
    """

    dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, rows, columns, features) to (batch, rows / 2, columns / 2, dim)."""
        rows, columns = halved(grid_of(x))
        x = layers.torch_layer_norm(dtype=self.dtype, name="norm")(x)
        return nn.Conv(
            self.dim,
            (2, 2),
            strides=(2, 2),
            padding="VALID",
            kernel_init=layers.conv_init,
            conv_general_dilated=convolutions.of_images,
            dtype=self.dtype,
            name="conv",
        )(fill(x, (2 * rows, 2 * columns)))


class DaViT(layers.Staged, Classifier, kw_only=True):
    """DaViT for classification, the same function as timm's `DaVit`.

    It accepts images of any size, square or not, as timm's does: zeros pad what the stem, a window
    or 2 x 2 tokens need. A representation is the map of all tokens, (batch, rows, columns, dim).
    There is no class token, so an injection's tokens "all" and "patch" mean the same.

    An injection addresses the blocks by their number from 1, counted over all stages; odd ones
    attend within windows, even ones between channels. "attention_input" is the output of a block's
    first norm, after its first position encoding.

    Has the attributes of every `Classifier`, and these:

    Attributes:
      dim: features of a token in the first stage; they double with each further stage. A multiple
        of `head_dim`.
      stage_sizes: number of blocks of each stage, an even number: twice the published depths, which
        count pairs. Blocks are named stage1_block1, ….
      head_dim: features of an attention head, in all stages.
      window_size: side of a window in tokens.
    """

    dim: int = 96
    stage_sizes: tuple[int, ...] = (2, 2, 6, 2)
    head_dim: int = 32
    window_size: int = 7

    points = ("image", "block_input", "attention_input")

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(
            dim=self.dim,
            stage_sizes=self.stage_sizes,
            head_dim=self.head_dim,
            window_size=self.window_size,
        )
        checks.require_whole_heads(self.dim, self.head_dim)
        if any(number % 2 for number in self.stage_sizes):
            raise ValueError(
                f"stage_sizes={self.stage_sizes!r}: give even numbers, twice the published depths, "
                "because a block of spatial attention and one of channel attention make a pair"
            )

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        height, width = (-(-side // _STRIDE) * _STRIDE for side in grid_of(images))
        x = nn.Conv(
            self.dim,
            (7, 7),
            strides=(_STRIDE, _STRIDE),
            padding=3,
            kernel_init=layers.conv_init,
            conv_general_dilated=convolutions.of_images,
            dtype=self.dtype,
            name="patch_embed",
        )(fill(images, (height, width)))
        return layers.torch_layer_norm(dtype=self.dtype, name="patch_norm")(x)

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        stage, number = layers.stage_and_number(layer, self.stage_sizes)
        dim = x.shape[-1]
        attention = ChannelAttention
        if number % 2:
            size = (self.window_size, self.window_size)
            attention = functools.partial(WindowAttention, windows=Windows(grid_of(x), size))
        block = nn.remat(layers.Block) if self.remat else layers.Block
        x = block(
            layer=layer,
            attention=functools.partial(attention, num_heads=dim // self.head_dim),
            mlp_dim=4 * dim,
            norm=layers.torch_layer_norm,
            encoding=PositionEncoding,
            # Both blocks of a pair have the same rate.
            drop_path=layers.drop_path_rates(self.drop_path, self.num_layers // 2)[
                (layer - 1) // 2
            ],
            train=train,
            dtype=self.dtype,
            name=self.layer_name(layer),
        )(x, taps)
        if number < self.stage_sizes[stage - 1] or stage == len(self.stage_sizes):
            return x
        return Downsampling(dim=2 * dim, dtype=self.dtype, name=f"merge_{stage + 1}")(x)

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return layers.normal_init

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        return layers.torch_layer_norm(name="fc_norm")(x)
