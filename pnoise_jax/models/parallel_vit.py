"""ViT-22B (https://arxiv.org/abs/2302.05442) and smaller models of its kind.

The weights were never released. The models compute the same function as timm's `vit_…_xp_…`, which
has the same blocks, if that is built with attention pooling and without what it adds before the
blocks.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise, parallel
from pnoise_jax.models.parts import layers, products
from pnoise_jax.models.parts.attention import Attention
from pnoise_jax.models.transformer import IsotropicTransformer

# Layer norms without a bias and without centring.
_norm = functools.partial(nn.RMSNorm, epsilon=1e-6)


class ProjectedAttention(Attention, kw_only=True):
    """Self-attention whose queries, keys and values are projected outside this module."""

    @nn.compact
    def __call__(self, qkv: jax.Array) -> jax.Array:
        """Maps queries, keys and values side by side, (batch, tokens, 3 * dim), to dim features."""
        return self.attend_projected(self._by_head(qkv))


class ParallelBlock(nn.Module, kw_only=True):
    """An encoder block whose attention and MLP read the same norm, inside one residual.

    One dense layer without bias projects to the MLP's hidden features, the queries, the keys and
    the values. The hidden features and both output layers have a bias.

    Attributes:
      layer: number of this block in the whole model, from 1, by which an injection addresses it.
      attention: makes the attention, given its `name`, `dropout`, `train` and `dtype`.
      mlp_dim: hidden features of the MLP.
      dropout: rate after the MLP's activation, as in timm.
      drop_path: rate at which stochastic depth leaves out the residual branch.
      train: whether both are on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    attention: Callable[..., nn.Module]
    mlp_dim: int
    dropout: float = 0.0
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: noise.Taps) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape."""
        dim = x.shape[-1]
        dense = functools.partial(products.dense, kernel_init=layers.normal_init, dtype=self.dtype)
        x = taps(x, layer=self.layer, point="block_input")
        h = _norm(dtype=self.dtype, name="in_norm")(x)
        h = taps(h, layer=self.layer, point="attention_input")
        h = dense(self.mlp_dim + 3 * dim, use_bias=False, name="in_proj")(h)
        if isinstance(h, tuple):  # if devices share the product; see `ParallelViT.matmul_split`
            hidden, qkv = h
        else:
            hidden, qkv = h[..., : self.mlp_dim], h[..., self.mlp_dim :]
        bias = self.param("mlp_bias", nn.initializers.zeros, (self.mlp_dim,), jnp.float32)
        hidden = layers.exact_gelu(hidden + bias.astype(self.dtype)[None, None])
        hidden = nn.Dropout(self.dropout, deterministic=not self.train)(hidden)
        attention = self.attention(dropout=0.0, train=self.train, dtype=self.dtype, name="attn")
        h = attention(qkv) + dense(dim, name="mlp_out_proj")(hidden)
        return x + layers.DropPath(self.drop_path, self.train, name="drop_path")(h)


class AttentionPooling(nn.Module, kw_only=True):
    """Pools tokens by the attention of one learned token, and an MLP: the MAP head.

    Attributes:
      num_heads: attention heads.
      mlp_dim: hidden features of the MLP.
    """

    num_heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, tokens, dim), float32, to (batch, dim)."""
        batch, tokens, dim = x.shape
        dense = functools.partial(products.dense, kernel_init=layers.normal_init)
        init = nn.initializers.normal(dim**-0.5)
        latent = self.param("latent", init, (1, 1, dim), jnp.float32)
        heads = (self.num_heads, dim // self.num_heads)
        query = jnp.broadcast_to(dense(dim, name="q")(latent), (batch, 1, dim))
        keys_and_values = dense(2 * dim, name="kv")(x).reshape(batch, tokens, 2, *heads)
        key, value = jnp.unstack(keys_and_values, axis=2)
        pooled = jax.nn.dot_product_attention(query.reshape(batch, 1, *heads), key, value)
        pooled = dense(dim, name="proj")(pooled.reshape(batch, 1, dim))
        mlp = layers.Mlp(hidden_dim=self.mlp_dim, name="mlp")
        return (pooled + mlp(_norm(name="norm")(pooled)))[:, 0]


class ParallelViT(IsotropicTransformer, kw_only=True):
    """A Vision Transformer with ViT-22B's blocks: attention and MLP in parallel, norms of queries
    and keys, no bias in the projection to them, and a head that pools by attention.

    The positions are learned. There is no class token, so an injection's tokens "all" and "patch"
    mean the same. At "attention_input", the output of a block's only norm, noise also enters the
    MLP.

    Has the attributes of every `IsotropicTransformer`, with patches of 14 pixels. `mlp_dim` is
    also used for the head's MLP.
    """

    patch_size: int = 14

    @property
    def matmul_split(self) -> parallel.MatmulSplit:
        return parallel.MatmulSplit(
            fused=("in_proj",),
            columns=("attn_pool/mlp/fc1",),
            rows=("attn/proj", "mlp_out_proj", "attn_pool/mlp/fc2"),
            between=("attn", "Dropout_0", "mlp"),  # Dropout_0 is the hidden features' dropout
            sizes=self.block_split.sizes,
        )

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = self.embed_patches(images)
        shape = (1, x.shape[1], self.dim)
        pos_embed = self.param("pos_embed", layers.normal_init, shape, jnp.float32)
        x = x + pos_embed.astype(self.dtype)
        return nn.Dropout(self.dropout, deterministic=not train)(x)

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        attention = functools.partial(
            ProjectedAttention, num_heads=self.num_heads, qk_norm=_norm, qkv_bias="none"
        )
        block = self.encoder_block(
            layer, train, kind=ParallelBlock, attention=attention, mlp_dim=self.mlp_features
        )
        return block(x, taps)

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return layers.normal_init

    @nn.nowrap
    def run_norm(self, x: jax.Array) -> jax.Array:
        return _norm(dtype=jnp.float32, name="norm")(x)

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        pooling = AttentionPooling(
            num_heads=self.num_heads, mlp_dim=self.mlp_features, name="attn_pool"
        )
        return pooling(self.run_norm(x))
