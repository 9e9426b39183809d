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
from pnoise_jax.models import checks, layers


class GatedAttention(nn.Module, kw_only=True):
    """Gated positional self-attention: each head mixes attention by content and by position.

    It begins nearly as a convolution: by position, each head looks at one neighbour.

    Attributes:
      grid: rows and columns of the tokens.
      num_heads: number of heads; it divides the features of a token.
      locality_strength: how sharply the heads look at their neighbours in the beginning.
      dropout: rate of the dropout after the output projection.
      train: whether dropout is on.
      dtype: dtype of the computation; parameters are float32.
    """

    grid: tuple[int, int]
    num_heads: int
    locality_strength: float = 1.0
    dropout: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape."""
        batch, tokens, dim = x.shape
        dense = functools.partial(nn.Dense, kernel_init=layers.normal_init, dtype=self.dtype)
        qk = dense(2 * dim, use_bias=False, name="qk")(x)
        value = dense(dim, use_bias=False, kernel_init=_identity, name="v")(x)
        qk = qk.reshape(batch, tokens, 2, self.num_heads, dim // self.num_heads)
        query, key = jnp.unstack(qk, axis=2)
        value = value.reshape(query.shape)
        by_content = jax.nn.dot_product_attention(query, key, value)
        by_position = jnp.einsum("hts,bshd->bthd", self._position_weights(), value)

        gate = self.param("gating_param", nn.initializers.ones, (self.num_heads,))
        gate = nn.sigmoid(gate).astype(self.dtype)[:, None]
        # timm mixes the weights instead, and divides them by their sum, which is 1 as it is.
        x = (1 - gate) * by_content + gate * by_position
        x = dense(dim, name="proj")(x.reshape(batch, tokens, dim))
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)

    def _position_weights(self) -> jax.Array:
        """How much each token looks at each other for its position, (heads, tokens, tokens)."""
        init = functools.partial(_neighbours, strength=self.locality_strength)
        scores = nn.Dense(self.num_heads, kernel_init=init, name="pos_proj")(_offsets(self.grid))
        return nn.softmax(scores.transpose(2, 0, 1)).astype(self.dtype)


def _offsets(grid: tuple[int, int]) -> np.ndarray:
    """From each token to each other, (tokens, tokens, 3) float32: columns, rows, distance²."""
    row, column = np.divmod(np.arange(math.prod(grid)), grid[1])
    right, down = column - column[:, None], row - row[:, None]
    return np.stack([right, down, right**2 + down**2], axis=-1).astype(np.float32)


def _identity(key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
    return jnp.eye(*shape, dtype=dtype)


def _neighbours(
    key: jax.Array, shape: tuple[int, int], dtype: Any, *, strength: float
) -> jax.Array:
    """The kernel (3, heads) by which each head looks at one token of a square around its own.

    Heads that are left over look anywhere.
    """
    side = math.isqrt(shape[1])
    right, down = np.stack(np.divmod(np.arange(side * side), side)) - (side - 1) / 2
    # Of the logits -|offset|² + 2 <offset, neighbour>, whose maximum is at the neighbour.
    square = np.stack([2 * right, 2 * down, np.full(side * side, -1.0)])
    kernel = layers.normal_init(key, shape, dtype)
    return strength * kernel.at[:, : side * side].set(square)


class Block(nn.Module, kw_only=True):
    """A pre-norm encoder block: attention, gated or plain, then an MLP, each inside a residual.

    Attributes:
      layer: number of this block, from 1: how an injection addresses it.
      grid: rows and columns of the patches.
      num_heads: number of attention heads.
      mlp_dim: hidden features of the MLP.
      gated: whether attention is gated positional self-attention, which has no class token.
      locality_strength: of gated attention.
      dropout: rate of the dropout inside attention and MLP.
      drop_path: rate at which stochastic depth leaves out each residual branch.
      train: whether both are on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    grid: tuple[int, int]
    num_heads: int
    mlp_dim: int
    gated: bool
    locality_strength: float = 1.0
    dropout: float = 0.0
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: Any) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape; `taps` are `noise.open_taps`'s."""
        common = {"dropout": self.dropout, "train": self.train, "dtype": self.dtype}
        attention = functools.partial(layers.Attention, qkv_bias=False)
        if self.gated:
            attention = functools.partial(
                GatedAttention, grid=self.grid, locality_strength=self.locality_strength
            )
        x = taps(x, layer=self.layer, point="block_input")
        h = layers.layer_norm(dtype=self.dtype, name="norm1")(x)
        h = taps(h, layer=self.layer, point="attention_input")
        h = attention(num_heads=self.num_heads, **common, name="attn")(h)
        x = x + layers.DropPath(self.drop_path, self.train, name="drop_path1")(h)
        h = layers.layer_norm(dtype=self.dtype, name="norm2")(x)
        h = layers.Mlp(hidden_dim=self.mlp_dim, **common, name="mlp")(h)
        return x + layers.DropPath(self.drop_path, self.train, name="drop_path2")(h)


class ConViT(nn.Module, kw_only=True):
    """ConViT for classification, the same function as timm's `ConVit`.

    The first `local_layers` blocks have gated positional self-attention over the patch tokens
    alone. The class token joins in front of the block that follows them. So `tokens="patch"` of an
    injection is all tokens before, and all but the first from there on.

    Attributes:
      num_classes: number of logits.
      image_size: the images' side, or (height, width), in pixels; multiples of `patch_size`.
      patch_size: side of a patch in pixels.
      dim: features of a token; a multiple of `num_heads`.
      depth: number of blocks, named block_1 … block_N and addressed by that number.
      num_heads: attention heads of each block.
      local_layers: number of blocks with gated attention, below `depth`: timm's
        `local_up_to_layer`.
      locality_strength: how sharply gated attention looks at its neighbours in the beginning.
      mlp_dim: hidden features of each MLP; 4 * dim if None.
      dropout: rate after the position embedding, the attention's projection and each layer of
        the MLP: timm's `pos_drop_rate` and `proj_drop_rate`. Draws from the "dropout" stream.
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
    patch_size: int = 16
    dim: int = 432
    depth: int = 12
    num_heads: int = 9
    local_layers: int = 10
    locality_strength: float = 1.0
    mlp_dim: int | None = None
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
            depth=self.depth,
            num_heads=self.num_heads,
        )
        if self.mlp_dim is not None:
            checks.require_positive(mlp_dim=self.mlp_dim)
        checks.require_rate(dropout=self.dropout, drop_path=self.drop_path)
        checks.require_whole_patches(self.image_size, self.image_shape, self.patch_size)
        checks.require_equal_heads(self.dim, self.num_heads)
        if type(self.local_layers) is not int or not 0 <= self.local_layers < self.depth:
            raise ValueError(
                f"local_layers={self.local_layers!r} with depth={self.depth}: give a whole number "
                f"from 0 to {self.depth - 1}: the class token joins in front of the block after "
                "them, and the head reads it"
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
        pos_embed = self.param("pos_embed", layers.normal_init, (1, x.shape[1], self.dim))
        x = x + pos_embed.astype(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)

        token = self.param("cls_token", layers.normal_init, (1, 1, self.dim))
        height, width = self.image_shape
        block = nn.remat(Block) if self.remat else Block
        for layer, rate in enumerate(layers.drop_path_rates(self.drop_path, self.depth), start=1):
            if layer == self.local_layers + 1:
                x = layers.prepend_token(token, x)
                taps = dataclasses.replace(taps, prefix_tokens=1)
            x = block(
                layer=layer,
                grid=(height // self.patch_size, width // self.patch_size),
                num_heads=self.num_heads,
                mlp_dim=4 * self.dim if self.mlp_dim is None else self.mlp_dim,
                gated=layer <= self.local_layers,
                locality_strength=self.locality_strength,
                dropout=self.dropout,
                drop_path=rate,
                train=train,
                dtype=self.dtype,
                name=self.layer_name(layer),
            )(x, taps)

        x = layers.layer_norm(dtype=jnp.float32, name="norm")(x)[:, 0]
        return nn.Dense(self.num_classes, kernel_init=layers.normal_init, name="head")(x)
