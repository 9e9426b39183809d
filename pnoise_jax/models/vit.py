"""The Vision Transformer (https://arxiv.org/abs/2010.11929), equal to timm's `vision_transformer`.

`embed_patches`, `Attention` and `Mlp` are public: other transformers are built from them.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise
from pnoise_jax.models import checks

# With Flax's fast variance, E[x^2] - E[x]^2: the exact one made a training step of ViT-Ti on a CPU
# 1.7 times as long. It loses digits only where a token's mean is far from 0 against its deviation.
_norm = functools.partial(nn.LayerNorm, epsilon=1e-6)
# timm's `trunc_normal_(std=.02)` cuts at ±2, a hundred standard deviations: a plain normal.
_normal_init = nn.initializers.normal(0.02)
# PyTorch's default for a convolution, which timm leaves in place: uniform within ±1/sqrt(fan_in).
_conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def embed_patches(
    images: jax.Array, *, patch_size: int, dim: int, dtype: Any, name: str = "patch_embed"
) -> jax.Array:
    """Cuts images into square patches and projects each: a submodule of the model that calls it.

    Args:
      images: (batch, height, width, channels), both sides multiples of `patch_size`.
      patch_size: side of a patch in pixels.
      dim: features of a token.
      dtype: dtype of the computation; parameters are float32.
      name: of the submodule.

    Returns:
      The tokens, (batch, patches, dim), row after row.
    """
    patch = (patch_size, patch_size)
    x = nn.Conv(
        dim,
        patch,
        strides=patch,
        padding="VALID",
        kernel_init=_conv_init,
        dtype=dtype,
        name=name,
    )(images)
    return x.reshape(x.shape[0], -1, dim)


class Attention(nn.Module, kw_only=True):
    """Multi-head self-attention, with one projection for queries, keys and values.

    Attributes:
      num_heads: number of heads; it divides the features of a token.
      dropout: rate of the dropout after the output projection.
      train: whether dropout is on.
      dtype: dtype of the computation; parameters are float32.
    """

    num_heads: int
    dropout: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape."""
        batch, tokens, dim = x.shape
        qkv = nn.Dense(3 * dim, kernel_init=_normal_init, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = jnp.unstack(qkv, axis=2)
        x = jax.nn.dot_product_attention(query, key, value).reshape(batch, tokens, dim)
        x = nn.Dense(dim, kernel_init=_normal_init, dtype=self.dtype, name="proj")(x)
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)


class Mlp(nn.Module, kw_only=True):
    """Two dense layers with the exact GELU between them.

    Attributes:
      hidden_dim: features between the two layers.
      dropout: rate of the dropout after each layer.
      train: whether dropout is on.
      dtype: dtype of the computation; parameters are float32.
    """

    hidden_dim: int
    dropout: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (..., dim) to the same shape."""
        dim = x.shape[-1]
        x = nn.Dense(self.hidden_dim, kernel_init=_normal_init, dtype=self.dtype, name="fc1")(x)
        x = nn.gelu(x, approximate=False)
        x = nn.Dropout(self.dropout, deterministic=not self.train)(x)
        x = nn.Dense(dim, kernel_init=_normal_init, dtype=self.dtype, name="fc2")(x)
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)


class Block(nn.Module, kw_only=True):
    """A pre-norm encoder block: attention, then an MLP, each inside a residual.

    Attributes:
      layer: number of this block, from 1: how an injection addresses it.
      num_heads: number of attention heads.
      mlp_dim: hidden features of the MLP.
      dropout: rate of the dropout inside attention and MLP.
      train: whether dropout is on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    num_heads: int
    mlp_dim: int
    dropout: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: Any) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape; `taps` are `noise.open_taps`'s."""
        common = {"dropout": self.dropout, "train": self.train, "dtype": self.dtype}
        x = taps(x, layer=self.layer, point="block_input")
        h = _norm(dtype=self.dtype, name="norm1")(x)
        h = taps(h, layer=self.layer, point="attention_input")
        x = x + Attention(num_heads=self.num_heads, **common, name="attn")(h)
        h = _norm(dtype=self.dtype, name="norm2")(x)
        return x + Mlp(hidden_dim=self.mlp_dim, **common, name="mlp")(h)


class VisionTransformer(nn.Module, kw_only=True):
    """Vision Transformer for classification, the same function as timm's `VisionTransformer`.

    Attributes:
      num_classes: number of logits.
      image_size: the images' side, or (height, width), in pixels; multiples of `patch_size`.
      patch_size: side of a patch in pixels.
      dim: features of a token; a multiple of `num_heads`.
      depth: number of blocks, named block_1 … block_N and addressed by that number.
      num_heads: attention heads of each block.
      mlp_dim: hidden features of each MLP; 4 * dim if None.
      class_token: whether a learned token stands in front of the patch tokens.
      pooling: what the head reads, after the final norm: "token", the class token, or "mean",
        the mean of the patch tokens alone. A class token then still takes part in attention,
        as in timm with `global_pool="avg", fc_norm=False`; note that timm's own default for
        `global_pool="avg"` puts the norm after the mean instead.
      dropout: rate after the position embedding, the attention's projection and each layer of
        the MLP: timm's `pos_drop_rate` and `proj_drop_rate`. Draws from the "dropout" stream.
      remat: recompute each block in the backward pass instead of keeping its activations.
      dtype: dtype of the blocks' computation. Parameters, the final norm and the head, and so
        the logits, are float32.
      injection: where noise enters, and which; None for the plain model.

    Raises:
      ValueError: at construction, if options contradict each other.
    """

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int | None = None
    class_token: bool = True
    pooling: str = "token"
    dropout: float = 0.0
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
            depth=self.depth,
            num_heads=self.num_heads,
        )
        if self.mlp_dim is not None:
            checks.require_positive(mlp_dim=self.mlp_dim)
        checks.require_rate(dropout=self.dropout)
        if self.pooling not in ("token", "mean"):
            raise ValueError(f'pooling={self.pooling!r} is unknown: use "token" or "mean"')
        if self.pooling == "token" and not self.class_token:
            raise ValueError(
                'pooling="token" reads the class token, which class_token=False removes: '
                'use pooling="mean" or class_token=True'
            )
        if any(side % self.patch_size for side in self.image_shape):
            raise ValueError(
                f"image_size={self.image_size} is not divisible by patch_size={self.patch_size}: "
                f"every side must be a multiple of {self.patch_size}"
            )
        if self.dim % self.num_heads:
            raise ValueError(
                f"dim={self.dim} is not divisible by num_heads={self.num_heads}: every head takes "
                "an equal share of the features, so change one of them"
            )

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        if isinstance(self.image_size, int):
            return (self.image_size, self.image_size)
        return tuple(self.image_size)

    @property
    def num_layers(self) -> int:
        """Number of layers that an injection can address: the blocks."""
        return self.depth

    @nn.nowrap
    def layer_name(self, layer: int) -> str:
        """Name of the submodule that is this layer, counted from 1; its input is all it reads."""
        return f"block_{layer}"

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
          train: turns on dropout and the injection's training noise.
          mask: (batch,) bool, True for real examples; only the injection reads it.
          noise_strength: scalar in place of the injection's own strength; may be traced.
          index: (batch,) int32, what each example's random noise is drawn from; by default its
            place in the batch.

        Returns:
          The logits, (batch, num_classes), float32.

        Raises:
          ValueError: if the images are not of the model's size.
        """
        if images.ndim != 4 or images.shape[1:3] != self.image_shape:
            height, width = self.image_shape
            raise ValueError(
                f"images have shape {images.shape}, expected (batch, {height}, {width}, channels): "
                "resize them, or create the model with their image_size"
            )
        prefix_tokens = int(self.class_token)
        taps = noise.open_taps(
            self,
            self.injection,
            num_layers=self.num_layers,
            train=train,
            mask=mask,
            strength=noise_strength,
            index=index,
            prefix_tokens=prefix_tokens,
        )
        images = taps(images, point="image")

        x = embed_patches(images, patch_size=self.patch_size, dim=self.dim, dtype=self.dtype)
        if self.class_token:
            token = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, self.dim))
            token = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.dim))
            x = jnp.concatenate([token, x], axis=1)
        pos_embed = self.param("pos_embed", _normal_init, (1, x.shape[1], self.dim))
        x = x + pos_embed.astype(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)

        block = nn.remat(Block) if self.remat else Block
        for layer in range(1, self.depth + 1):
            x = block(
                layer=layer,
                num_heads=self.num_heads,
                mlp_dim=4 * self.dim if self.mlp_dim is None else self.mlp_dim,
                dropout=self.dropout,
                train=train,
                dtype=self.dtype,
                name=self.layer_name(layer),
            )(x, taps)

        x = _norm(dtype=jnp.float32, name="norm")(x)
        x = x[:, 0] if self.pooling == "token" else x[:, prefix_tokens:].mean(axis=1)
        return nn.Dense(self.num_classes, kernel_init=_normal_init, name="head")(x)
