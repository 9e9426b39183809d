"""ConViT (https://arxiv.org/abs/2103.10697), equal to timm's `convit`."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import noise
from pnoise_jax.models.parts import attention_kernels, layers, products
from pnoise_jax.models.parts.attention import Attention, choose_kernel
from pnoise_jax.models.transformer import IsotropicTransformer


class GatedAttention(nn.Module, kw_only=True):
    """Gated positional self-attention: each head mixes attention by content and by position.

    Initially it is nearly a convolution: by position, each head attends to one neighbour.

    Attributes:
      grid: rows and columns of the tokens.
      num_heads: number of heads; must divide the features of a token.
      locality_strength: how sharply the heads initially attend to their neighbours.
      dropout: rate of the dropout after the output projection.
      kernel: as in `Attention`.
      train: whether dropout is on.
      dtype: dtype of the computation; parameters are float32.
    """

    grid: tuple[int, int]
    num_heads: int
    locality_strength: float = 1.0
    dropout: float = 0.0
    kernel: str = "xla"
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape."""
        batch, tokens, dim = x.shape
        dense = functools.partial(products.dense, kernel_init=layers.normal_init, dtype=self.dtype)
        qk = dense(2 * dim, use_bias=False, name="qk")(x)
        value = dense(dim, use_bias=False, kernel_init=_identity, name="v")(x)
        qk = qk.reshape(batch, tokens, 2, self.num_heads, dim // self.num_heads)
        query, key = jnp.unstack(qk, axis=2)
        value = value.reshape(query.shape)
        gate = self.param("gating_param", nn.initializers.ones, (self.num_heads,), jnp.float32)
        x = self.weigh_values(query, key, value, self._position_weights(), gate)
        x = dense(dim, name="proj")(x.reshape(batch, tokens, dim))
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)

    def weigh_values(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        position_weights: jax.Array,
        gate: jax.Array,
    ) -> jax.Array:
        """The attention itself; a separate method, as in `Attention`.

        Args:
          query, key, value: (batch, tokens, heads, dim / heads).
          position_weights: (heads, tokens, tokens).
          gate: (heads,), the weight of attention by position, before the sigmoid.

        Returns:
          (batch, tokens, heads, dim / heads).
        """
        kernel = choose_kernel(self.kernel, query, None, train=self.train)
        by_content = attention_kernels.attend(query, key, value, None, kernel=kernel)
        by_position = jnp.einsum("hts,bshd->bthd", position_weights, value)
        gate = nn.sigmoid(gate).astype(self.dtype)[None, None, :, None]
        # timm mixes the weights instead, and divides them by their sum, which is already 1.
        return (1 - gate) * by_content + gate * by_position

    def _position_weights(self) -> jax.Array:
        """Each token's attention by position to each token, (heads, tokens, tokens)."""
        init = functools.partial(_neighbours, strength=self.locality_strength)
        scores = nn.Dense(self.num_heads, kernel_init=init, name="pos_proj")(_offsets(self.grid))
        return nn.softmax(scores.transpose(2, 0, 1)).astype(self.dtype)


def _offsets(grid: tuple[int, int]) -> np.ndarray:
    """Offsets from each token to each, (tokens, tokens, 3) float32: columns, rows, distance²."""
    row, column = np.divmod(np.arange(math.prod(grid)), grid[1])
    right, down = column - column[:, None], row - row[:, None]
    return np.stack([right, down, right**2 + down**2], axis=-1).astype(np.float32)


def _identity(key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
    return jnp.eye(*shape, dtype=dtype)


def _neighbours(
    key: jax.Array, shape: tuple[int, int], dtype: Any, *, strength: float
) -> jax.Array:
    """The kernel (3, heads) with which each head attends to one token of a square around its own.

    Heads beyond the largest square get random values.
    """
    side = math.isqrt(shape[1])
    right, down = np.stack(np.divmod(np.arange(side * side), side)) - (side - 1) / 2
    # The logits are -|offset|² + 2 <offset, neighbour>, with their maximum at the neighbour.
    square = np.stack([2 * right, 2 * down, np.full(side * side, -1.0)]).astype(dtype)
    kernel = layers.normal_init(key, shape, dtype)
    return strength * kernel.at[:, : side * side].set(square)


class ConViT(IsotropicTransformer, kw_only=True):
    """ConViT for classification, the same function as timm's `ConVit`.

    The first `local_layers` blocks have gated positional self-attention over only the patch tokens.
    The class token is added before the next block. So an injection's `tokens="patch"` means all
    tokens in the first blocks, and all but the first token in the others.

    Has the attributes of every `IsotropicTransformer`, and these:

    Attributes:
      local_layers: number of blocks with gated attention, below `depth`: timm's
        `local_up_to_layer`.
      locality_strength: how sharply gated attention initially attends to its neighbours.
    """

    local_layers: int = 10
    locality_strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.local_layers) is not int or not 0 <= self.local_layers < self.depth:
            raise ValueError(
                f"local_layers={self.local_layers!r} with depth={self.depth}: give a whole number "
                f"from 0 to {self.depth - 1}: the class token, which the head reads, is added "
                "before the block after them"
            )

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = self.embed_patches(images)
        shape = (1, x.shape[1], self.dim)
        pos_embed = self.param("pos_embed", layers.normal_init, shape, jnp.float32)
        x = x + pos_embed.astype(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x if self.local_layers else self._join_class_token(x)

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        if layer > self.local_layers:
            return self._run_global_block(x, taps, layer, train)
        attention = functools.partial(
            GatedAttention,
            grid=self.grid,
            num_heads=self.num_heads,
            locality_strength=self.locality_strength,
        )
        block = self.encoder_block(layer, train, attention=attention, mlp_dim=self.mlp_features)
        x = block(x, taps)
        return self._join_class_token(x) if layer == self.local_layers else x

    @nn.nowrap
    def run_last_block(self, x: jax.Array, taps: noise.Taps, *, train: bool) -> jax.Array:
        """Computes only the class token, unless `all_tokens` is set."""
        if self.all_tokens or not self.head_is_of(ConViT):
            return super().run_last_block(x, taps, train=train)
        return self._run_global_block(x, taps, self.depth, train, queries=1)

    @nn.nowrap
    def _run_global_block(
        self, x: jax.Array, taps: noise.Taps, layer: int, train: bool, *, queries: int | None = None
    ) -> jax.Array:
        """Runs a block on patches with the class token, x (batch, 1 + patches, dim)."""
        attention = functools.partial(
            Attention, num_heads=self.num_heads, qkv_bias="none", queries=queries
        )
        block = self.encoder_block(layer, train, attention=attention, mlp_dim=self.mlp_features)
        return block(x, dataclasses.replace(taps, prefix_tokens=1))

    @nn.nowrap
    def _join_class_token(self, x: jax.Array) -> jax.Array:
        """Puts the class token before the patch tokens."""
        token = self.param("cls_token", layers.normal_init, (1, 1, self.dim), jnp.float32)
        return layers.prepend_tokens(token, x)

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return layers.normal_init

    @nn.nowrap
    def run_norm(self, x: jax.Array) -> jax.Array:
        return layers.layer_norm(dtype=jnp.float32, name="norm")(x)

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.run_norm(x)[:, 0]
