"""Swin Transformer V2 (https://arxiv.org/abs/2111.09883), equal to timm's `swin_transformer_v2`.

Details that are easy to get wrong:

- The norms of a block come after attention and MLP, and their scales start at 0, so a fresh model's
  blocks do nothing. When tokens are merged between stages, the norm also comes last.
- There is no norm before the attention. At "attention_input", noise enters the block's input as the
  attention reads it, but not the residual.
- Attention compares directions: its logits are cosines times a factor per head, at most 100.
- Position biases come from a small network that reads distances on a logarithmic scale, in units of
  the windows used in pretraining. So the same arrays fit windows of any size, and no array shows
  for which size they were trained.
"""

import functools
import math
from collections.abc import Callable
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax.models.parts import layers
from pnoise_jax.models.parts.windows import Grid
from pnoise_jax.models.swin import ShiftedWindowAttention, SwinTransformer

_MAX_FACTOR = 100.0  # by which cosines are multiplied
_HIDDEN = 512  # features of the network for positions
_MAX_BIAS = 16.0


class CosineWindowAttention(ShiftedWindowAttention, kw_only=True):
    """Attention by cosines within windows, with a bias computed for each relative position.

    Attributes, in addition to those of `ShiftedWindowAttention`:
      unit: rows and columns of the windows whose size is the unit of distances.
    """

    unit: Grid
    qkv_bias: str = "query and value"

    def weigh_values(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        bias: jax.Array | None,
        gate: jax.Array | None,
    ) -> jax.Array:
        init = nn.initializers.constant(math.log(10))
        log_factor = self.param("logit_scale", init, (self.num_heads, 1, 1), jnp.float32)
        factor = jnp.exp(jnp.minimum(log_factor, math.log(_MAX_FACTOR)))[None, None, :, :, 0]
        factor = factor * query.shape[-1] ** 0.5  # by which the attention divides
        query = (_unit_length(query) * factor).astype(self.dtype)
        key = _unit_length(key).astype(self.dtype)
        return super().weigh_values(query, key, value, bias, gate)

    def table(self) -> jax.Array:
        dense = functools.partial(nn.Dense, kernel_init=layers.normal_init)
        distances = jnp.asarray(_log_distances(self.windows.size, self.unit))
        x = nn.relu(dense(_HIDDEN, name="cpb_fc1")(distances))
        x = dense(self.num_heads, use_bias=False, name="cpb_fc2")(x)
        return _MAX_BIAS * nn.sigmoid(x)


def _unit_length(x: jax.Array) -> jax.Array:
    """Divides x (..., features) by its length, in float32; zeros stay zeros."""
    x = x.astype(jnp.float32)
    squares = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def _log_distances(window: Grid, unit: Grid) -> np.ndarray:
    """Relative positions within a window, row after row, log-scaled, (positions, 2) float32."""
    axes = (
        8 * np.arange(1 - size, size, dtype=np.float32) / max(whole - 1, 1)
        for size, whole in zip(window, unit, strict=True)
    )
    distances = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.sign(distances) * np.log2(np.abs(distances) + 1) / np.float32(math.log2(8))


class SwinTransformerV2(SwinTransformer, kw_only=True):
    """Swin Transformer V2 for classification, the same function as timm's `SwinTransformerV2`.

    Has the attributes of `SwinTransformer`, and these:

    Attributes:
      pretrained_window_sizes: the windows' sides in tokens, one for each stage, for which the
        position network was trained; 0 is the model's own side, and () its own in all stages. Set
        it if weights are used with larger windows than they were trained with.
    """

    image_size: int | tuple[int, int] = 256
    window_size: int = 8
    pretrained_window_sizes: tuple[int, ...] = ()

    post_norm = True
    block_norm_options = MappingProxyType({"scale_init": nn.initializers.zeros})

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.pretrained_window_sizes
        is_known = isinstance(sizes, tuple) and len(sizes) in (0, len(self.stage_sizes))
        if not is_known or not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError(
                f"pretrained_window_sizes={sizes!r}: give one side for each of the "
                f"{len(self.stage_sizes)} stages, 0 for the model's own, or () for its own in all"
            )

    @nn.nowrap
    def attention_kind(self, layer: int) -> Callable[..., nn.Module]:
        stage, _ = layers.stage_and_number(layer, self.stage_sizes)
        side = self.pretrained_window_sizes[stage - 1] if self.pretrained_window_sizes else 0
        unit = (side, side) if side else self.attention_grid(layer)
        return functools.partial(CosineWindowAttention, unit=unit)
