"""The Vision Transformer (https://arxiv.org/abs/2010.11929), equal to timm's `vision_transformer`.

DeiT (https://arxiv.org/abs/2012.12877) is the same model, optionally with a second token:
`distilled`.
DeiT III (https://arxiv.org/abs/2204.07118) scales its residual branches, and timm's models with
registers (https://arxiv.org/abs/2309.16588) have those scales and no class token.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise, parallel
from pnoise_jax.models import checks
from pnoise_jax.models.parts import layers
from pnoise_jax.models.parts.attention import Attention
from pnoise_jax.models.transformer import IsotropicTransformer


class VisionTransformer(IsotropicTransformer, kw_only=True):
    """Vision Transformer for classification, the same function as timm's `VisionTransformer`.

    Has the attributes of every `IsotropicTransformer`, and these:

    Attributes:
      class_token: whether a learned token comes before the patch tokens.
      register_tokens: how many more learned tokens come between the class token and the patch
        tokens. They only take part in attention: no head reads them. For noise they are prefix
        tokens, like the class token, so "patch" leaves them alone.
      prefix_positions: whether the class token and registers have position embeddings; False is
        timm's `no_embed_class=True`.
      pooling: what the head reads: "token", the class token after the final norm; "mean", the
        mean of the patch tokens after it, timm's `global_pool="avg", fc_norm=False`; or
        "mean_then_norm", their mean, normalised afterwards by `fc_norm`, which is what timm's
        `global_pool="avg"` does by default. A class token always takes part in attention.
      layer_scale: initial value of the scale of each residual branch; 0 for no scales.
      qkv_bias: whether queries, keys and values have a bias.
      pre_norm: whether there is a norm before the first block, as in CLIP's image encoders
        (https://arxiv.org/abs/2103.00020). Then, as in CLIP, the patch embedding has no bias, and
        the epsilon of all norms is 1e-5 instead of 1e-6.
      distilled: whether to add DeiT's second learned token, after the class token, with a separate
        head. The logits are the mean of both heads' logits, also in training. This is what timm
        does, except when it distils: then one head learns from labels and the other from a
        teacher. There is no teacher here; timm, too, fine-tunes with a loss on the mean.
    """

    class_token: bool = True
    register_tokens: int = 0
    prefix_positions: bool = True
    pooling: str = "token"
    layer_scale: float = 0.0
    qkv_bias: bool = True
    pre_norm: bool = False
    distilled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_count(register_tokens=self.register_tokens)
        checks.require_finite(layer_scale=self.layer_scale)
        if self.pooling not in ("token", "mean", "mean_then_norm"):
            raise ValueError(
                f'pooling={self.pooling!r} is unknown: use "token", "mean" or "mean_then_norm"'
            )
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
        if self.distilled and (self.register_tokens or not self.prefix_positions):
            raise ValueError(
                "distilled=True is DeiT, which has no registers and a position for each token: use "
                "it with register_tokens=0 and prefix_positions=True"
            )

    @property
    def prefix_tokens(self) -> int:
        """How many learned tokens come before the patch tokens."""
        return int(self.class_token) + int(self.distilled) + self.register_tokens

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = self.embed_patches(images, use_bias=not self.pre_norm)
        if not self.prefix_positions:
            x = self._add_positions(x)
        near_zero = nn.initializers.normal(1e-6)
        for name, number, init in (  # each is put before the previous ones
            ("dist_token", int(self.distilled), layers.normal_init),
            ("reg_token", self.register_tokens, near_zero),
            ("cls_token", int(self.class_token), near_zero),
        ):
            if number:
                tokens = self.param(name, init, (1, number, self.dim), jnp.float32)
                x = layers.prepend_tokens(tokens, x)
        if self.prefix_positions:
            x = self._add_positions(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self._layer_norm(dtype=self.dtype, name="norm_pre")(x) if self.pre_norm else x

    @property
    def _layer_norm(self) -> Callable[..., nn.Module]:
        """Makes a norm, given its `dtype` and `name`."""
        return layers.torch_layer_norm if self.pre_norm else layers.layer_norm

    @nn.nowrap
    def _add_positions(self, x: jax.Array) -> jax.Array:
        """Adds a learned position embedding to each token of x (batch, tokens, dim)."""
        shape = (1, x.shape[1], self.dim)
        pos_embed = self.param("pos_embed", layers.normal_init, shape, jnp.float32)
        return x + pos_embed.astype(self.dtype)

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        return self._block(layer, train)(x, taps)

    @nn.nowrap
    def run_last_block(self, x: jax.Array, taps: noise.Taps, *, train: bool) -> jax.Array:
        """Computes only the tokens that the head reads, unless `all_tokens` is set."""
        if self.all_tokens or self.pooling != "token" or not self.head_is_of(VisionTransformer):
            return super().run_last_block(x, taps, train=train)
        return self._block(self.depth, train, queries=1 + int(self.distilled))(x, taps)

    @nn.nowrap
    def _block(self, layer: int, train: bool, *, queries: int | None = None) -> nn.Module:
        attention = functools.partial(
            Attention,
            num_heads=self.num_heads,
            qkv_bias="all" if self.qkv_bias else "none",
            queries=queries,
        )
        return self.encoder_block(
            layer,
            train,
            attention=attention,
            mlp_dim=self.mlp_features,
            norm=self._layer_norm,
            layer_scale=self.layer_scale or None,
        )

    @property
    def matmul_split(self) -> parallel.MatmulSplit:
        return self.block_split

    @property
    def head_init(self) -> nn.initializers.Initializer:
        return layers.normal_init

    @nn.nowrap
    def run_norm(self, x: jax.Array) -> jax.Array:
        name = "fc_norm" if self.pooling == "mean_then_norm" else "norm"
        return self._layer_norm(dtype=jnp.float32, name=name)(x)

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.pooling == "mean_then_norm":
            patches = x[:, self.prefix_tokens :].astype(jnp.float32)
            return self.run_norm(patches.mean(axis=1))
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
