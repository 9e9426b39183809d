"""The Vision Transformer (https://arxiv.org/abs/2010.11929), equal to timm's `vision_transformer`.

DeiT (https://arxiv.org/abs/2012.12877) is the same model, or with a second token: `distilled`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise
from pnoise_jax.models import checks, layers


class Block(nn.Module, kw_only=True):
    """A pre-norm encoder block: attention, then an MLP, each inside a residual.

    Attributes:
      layer: number of this block, from 1: how an injection addresses it.
      num_heads: number of attention heads.
      mlp_dim: hidden features of the MLP.
      dropout: rate of the dropout inside attention and MLP.
      drop_path: rate at which stochastic depth leaves out each residual branch.
      train: whether both are on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    num_heads: int
    mlp_dim: int
    dropout: float = 0.0
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: Any) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape; `taps` are `noise.open_taps`'s."""
        common = {"dropout": self.dropout, "train": self.train, "dtype": self.dtype}
        x = taps(x, layer=self.layer, point="block_input")
        h = layers.layer_norm(dtype=self.dtype, name="norm1")(x)
        h = taps(h, layer=self.layer, point="attention_input")
        h = layers.Attention(num_heads=self.num_heads, **common, name="attn")(h)
        x = x + layers.DropPath(self.drop_path, self.train, name="drop_path1")(h)
        h = layers.layer_norm(dtype=self.dtype, name="norm2")(x)
        h = layers.Mlp(hidden_dim=self.mlp_dim, **common, name="mlp")(h)
        return x + layers.DropPath(self.drop_path, self.train, name="drop_path2")(h)


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
      distilled: DeiT's second learned token, behind the class token, with a head of its own. The
        logits are the mean of both heads', in training too: as timm's, unless that is told to
        distil, when its heads learn from labels and from a teacher. There is no teacher here, and
        a loss on the mean is the one that timm fine-tunes with.
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
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int | None = None
    class_token: bool = True
    pooling: str = "token"
    distilled: bool = False
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
        if self.pooling not in ("token", "mean"):
            raise ValueError(f'pooling={self.pooling!r} is unknown: use "token" or "mean"')
        if self.pooling == "token" and not self.class_token:
            raise ValueError(
                'pooling="token" reads the class token, which class_token=False removes: '
                'use pooling="mean" or class_token=True'
            )
        if self.distilled and (self.pooling != "token" or not self.class_token):
            raise ValueError(
                "distilled=True has one head on the class token and one on the distillation token: "
                'use it with class_token=True and pooling="token"'
            )
        checks.require_whole_patches(self.image_size, self.image_shape, self.patch_size)
        checks.require_equal_heads(self.dim, self.num_heads)

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

    @property
    def prefix_tokens(self) -> int:
        """How many learned tokens stand in front of the patch tokens."""
        return int(self.class_token) + int(self.distilled)

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
            prefix_tokens=self.prefix_tokens,
        )
        images = taps(images, point="image")

        x = layers.embed_patches(images, patch_size=self.patch_size, dim=self.dim, dtype=self.dtype)
        if self.distilled:
            token = self.param("dist_token", layers.normal_init, (1, 1, self.dim))
            x = layers.prepend_token(token, x)
        if self.class_token:
            token = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, self.dim))
            x = layers.prepend_token(token, x)
        pos_embed = self.param("pos_embed", layers.normal_init, (1, x.shape[1], self.dim))
        x = x + pos_embed.astype(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)

        block = nn.remat(Block) if self.remat else Block
        for layer, rate in enumerate(layers.drop_path_rates(self.drop_path, self.depth), start=1):
            x = block(
                layer=layer,
                num_heads=self.num_heads,
                mlp_dim=4 * self.dim if self.mlp_dim is None else self.mlp_dim,
                dropout=self.dropout,
                drop_path=rate,
                train=train,
                dtype=self.dtype,
                name=self.layer_name(layer),
            )(x, taps)

        x = layers.layer_norm(dtype=jnp.float32, name="norm")(x)
        head = functools.partial(nn.Dense, self.num_classes, kernel_init=layers.normal_init)
        if self.distilled:
            return (head(name="head")(x[:, 0]) + head(name="head_dist")(x[:, 1])) / 2
        x = x[:, 0] if self.pooling == "token" else x[:, self.prefix_tokens :].mean(axis=1)
        return head(name="head")(x)
