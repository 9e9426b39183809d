"""BEiT (https://arxiv.org/abs/2106.08254) for classification, equal to timm's `beit`."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import noise, parallel
from pnoise_jax.models.parts import layers
from pnoise_jax.models.parts.attention import Attention
from pnoise_jax.models.transformer import IsotropicTransformer


class BeitAttention(Attention, kw_only=True):
    """Self-attention with a learned bias for each relative position; keys have no bias.

    Attributes, in addition to those of `Attention`:
      grid: rows and columns of the patches, which follow one class token.
    """

    grid: tuple[int, int]
    qkv_bias: str = "query and value"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, 1 + patches, dim) to the same shape."""
        index = _relative_position_index(self.grid)
        shape = (index.max() + 1, self.num_heads)
        table = self.param(
            "relative_position_bias_table", nn.initializers.zeros, shape, jnp.float32
        )
        return self.attend(x, table[index].transpose(2, 0, 1)[None])


class Beit(IsotropicTransformer, kw_only=True):
    """BEiT for classification, the same function as timm's `Beit` without absolute positions.

    The class token only takes part in attention: the head reads the mean of the patch tokens,
    normalised after taking the mean.

    Has the attributes of every `IsotropicTransformer`, and these:

    Attributes:
      layer_scale: initial value of the scale of each residual branch.
    """

    layer_scale: float = 0.1

    prefix_tokens = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.layer_scale, int | float):
            raise ValueError(f"layer_scale={self.layer_scale!r}: give a number, such as 0.1")

    @nn.nowrap
    def attention_grid(self, layer: int) -> tuple[int, int]:
        """Rows and columns of the patches whose relative positions this layer's table contains."""
        return self.grid

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        token = self.param("cls_token", layers.normal_init, (1, 1, self.dim), jnp.float32)
        x = layers.prepend_tokens(token, self.embed_patches(images))
        return nn.Dropout(self.dropout, deterministic=not train)(x)

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        # The deeper the block, the smaller the initial values of its branches' last layers.
        init = nn.initializers.normal(0.02 / math.sqrt(2 * layer))
        block = self.encoder_block(
            layer,
            train,
            attention=functools.partial(
                BeitAttention, grid=self.grid, num_heads=self.num_heads, proj_init=init
            ),
            mlp_dim=self.mlp_features,
            mlp=functools.partial(layers.Mlp, out_init=init),
            layer_scale=self.layer_scale,
        )
        return block(x, taps)

    @property
    def matmul_split(self) -> parallel.MatmulSplit:
        return self.block_split

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return nn.initializers.normal(0.001 * 0.02)  # timm's `head_init_scale`

    @nn.nowrap
    def run_norm(self, x: jax.Array) -> jax.Array:
        return layers.layer_norm(name="fc_norm")(x.astype(jnp.float32))

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x[:, self.prefix_tokens :].astype(jnp.float32).mean(axis=1)
        return self.run_norm(x)


def _relative_position_index(grid: tuple[int, int]) -> np.ndarray:
    """The table's row for each pair of tokens, (tokens, tokens); the class token comes first.

    The table's last three rows are for the pairs (class, patch), (patch, class), (class, class).
    """
    rows, columns = grid
    pairs = (2 * rows - 1) * (2 * columns - 1)
    index = np.pad(layers.relative_position_index(rows, columns), ((1, 0), (1, 0)))
    index[0, :], index[:, 0], index[0, 0] = pairs, pairs + 1, pairs + 2
    return index
