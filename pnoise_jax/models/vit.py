"""The Vision Transformer (https://arxiv.org/abs/2010.11929), equal to timm's `vision_transformer`.

DeiT (https://arxiv.org/abs/2012.12877) is the same model, or with a second token: `distilled`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise, parallel
from pnoise_jax.models import layers
from pnoise_jax.models.transformer import IsotropicTransformer


class VisionTransformer(IsotropicTransformer, kw_only=True):
    """Vision Transformer for classification, the same function as timm's `VisionTransformer`.

    Takes the attributes of every `IsotropicTransformer`, and these:

    Attributes:
      class_token: whether a learned token stands in front of the patch tokens.
      pooling: what the head reads, after the final norm: "token", the class token, or "mean",
        the mean of the patch tokens alone. A class token then still takes part in attention,
        as in timm with `global_pool="avg", fc_norm=False`; note that timm's own default for
        `global_pool="avg"` puts the norm after the mean instead.
      distilled: DeiT's second learned token, behind the class token, with a head of its own. The
        logits are the mean of both heads', in training too: as timm's, unless that is told to
        distil, when its heads learn from labels and from a teacher. There is no teacher here, and
        a loss on the mean is the one that timm fine-tunes with.
    """

    class_token: bool = True
    pooling: str = "token"
    distilled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
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

    @property
    def prefix_tokens(self) -> int:
        """How many learned tokens stand in front of the patch tokens."""
        return int(self.class_token) + int(self.distilled)

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = self.embed_patches(images)
        if self.distilled:
            token = self.param("dist_token", layers.normal_init, (1, 1, self.dim), jnp.float32)
            x = layers.prepend_token(token, x)
        if self.class_token:
            init = nn.initializers.normal(1e-6)
            token = self.param("cls_token", init, (1, 1, self.dim), jnp.float32)
            x = layers.prepend_token(token, x)
        shape = (1, x.shape[1], self.dim)
        pos_embed = self.param("pos_embed", layers.normal_init, shape, jnp.float32)
        x = x + pos_embed.astype(self.dtype)
        return nn.Dropout(self.dropout, deterministic=not train)(x)

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        attention = functools.partial(layers.Attention, num_heads=self.num_heads)
        block = self.encoder_block(layer, train, attention=attention, mlp_dim=self.mlp_features)
        return block(x, taps)

    @property
    def matmul_split(self) -> parallel.MatmulSplit:
        return self.block_split

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return layers.normal_init

    @nn.nowrap
    def run_norm(self, x: jax.Array) -> jax.Array:
        return layers.layer_norm(dtype=jnp.float32, name="norm")(x)

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.run_norm(x)
        if self.distilled:
            return x[:, :2]
        return x[:, 0] if self.pooling == "token" else x[:, self.prefix_tokens :].mean(axis=1)

    @nn.nowrap
    def run_logits(self, features: jax.Array, *, train: bool) -> jax.Array:
        if not self.distilled:
            return super().run_logits(features, train=train)
        dense = functools.partial(nn.Dense, self.num_classes, kernel_init=layers.normal_init)
        return (dense(name="head")(features[:, 0]) + dense(name="head_dist")(features[:, 1])) / 2
