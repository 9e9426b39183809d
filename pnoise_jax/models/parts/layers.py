"""Modules and functions that models share, each equal to its counterpart in timm."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import noise
from pnoise_jax.models.parts import products

# Uses Flax's fast variance, E[x^2] - E[x]^2: with the exact one, a training step of ViT-Ti on a CPU
# took 1.7 times as long. The fast one loses digits only if a token's mean is much larger than its
# standard deviation.
layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-6)
# The same with PyTorch's default epsilon.
torch_layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
# timm's `trunc_normal_(std=.02)` cuts at ±2, a hundred standard deviations: a plain normal.
normal_init = nn.initializers.normal(0.02)
# PyTorch's default for a convolution, which timm leaves in place: uniform within ±1/sqrt(fan_in).
conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def exact_gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x / 2 * (1 + erf(x / sqrt(2))), in the dtype of x.

    This is PyTorch's formula, with an error of up to 1e-6. Flax uses erfc instead of 1 + erf, which
    is more accurate if the result is nearly 0, but takes nearly three times as many instructions on
    a GPU.

    16-bit inputs are computed in float32: a gradient in bfloat16 would be off by 0.3 %, because its
    constants are rounded. The gradient computes erf again, so a compiled step keeps only x for it,
    not two more arrays of that size.
    """
    return _gelu_with_slope(x) if x.dtype.itemsize >= 4 else _gelu_in_float32(x)


def _gelu(x: jax.Array) -> jax.Array:
    return x * _normal_below(x)


def _normal_below(x: jax.Array) -> jax.Array:
    """The probability that a standard normal number is below x."""
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


@jax.checkpoint
def _gelu_in_float32(x: jax.Array) -> jax.Array:
    return _gelu(x.astype(jnp.float32)).astype(x.dtype)


# A tangent rule, because the equivalent with jax.checkpoint takes longer to compile.
_gelu_with_slope = jax.custom_jvp(_gelu)


@_gelu_with_slope.defjvp
def _differentiate_gelu(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    ((x,), (tangent,)) = primals, tangents
    again = jax.lax.optimization_barrier(x)  # else XLA would keep erf
    density = jnp.exp(-0.5 * again * again) / math.sqrt(2 * math.pi)
    slope = _normal_below(again) + again * density
    return _gelu_with_slope(x), slope * tangent


def prepend_tokens(tokens: jax.Array, x: jax.Array) -> jax.Array:
    """Puts learned tokens (1, number, dim) before each example's in x (batch, tokens, dim)."""
    tokens = jnp.broadcast_to(tokens.astype(x.dtype), (x.shape[0], *tokens.shape[1:]))
    return jnp.concatenate([tokens, x], axis=1)


class Mlp(nn.Module, kw_only=True):
    """Two dense layers with an activation between them.

    Attributes:
      hidden_dim: features between the two layers.
      in_init, out_init: initial values of the first and of the second layer.
      activation: by default the exact GELU.
      dropout: rate of the dropout after each layer.
      train: whether dropout is on.
      dtype: dtype of the computation; parameters are float32.
    """

    hidden_dim: int
    in_init: nn.initializers.Initializer = normal_init
    out_init: nn.initializers.Initializer = normal_init
    activation: Callable[[jax.Array], jax.Array] = exact_gelu
    dropout: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (..., dim) to the same shape."""
        dim = x.shape[-1]
        dense = functools.partial(products.dense, dtype=self.dtype)
        x = dense(self.hidden_dim, kernel_init=self.in_init, name="fc1")(x)
        x = self.activation(x)
        x = nn.Dropout(self.dropout, deterministic=not self.train)(x)
        x = dense(dim, kernel_init=self.out_init, name="fc2")(x)
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)


class DropPath(nn.Module):
    """Stochastic depth (https://arxiv.org/abs/1603.09382): zeroes some examples' residual branch.

    The others are divided by their probability, as in timm. Draws from the "dropout" stream.

    Attributes:
      rate: the probability that an example's branch is left out.
      train: whether it is on.
    """

    rate: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, ...) to the same shape; returns x itself if the rate is 0 or it is off."""
        all_but_batch = tuple(range(1, x.ndim))
        return nn.Dropout(self.rate, all_but_batch, deterministic=not self.train)(x)


class Block(nn.Module, kw_only=True):
    """An encoder block: attention, then an MLP, each inside a residual.

    Attributes:
      layer: number of this block in the whole model, from 1, by which an injection addresses it.
      attention: makes the attention, (batch, tokens, dim) to the same shape, given its `name`,
        `dropout`, `train` and `dtype`. If it returns only the first tokens, so does the block.
      mlp_dim: hidden features of the MLP.
      mlp: makes the MLP, given its `hidden_dim`, `name`, `dropout`, `train` and `dtype`.
      norm: makes a layer norm, given its `name` and `dtype`.
      post_norm: whether the norms come after attention and MLP, still inside the residuals, instead
        of before them. In both cases, the point "attention_input" is the input of the attention.
      layer_scale: initial value of the scales by which both branches are multiplied, one for each
        feature (https://arxiv.org/abs/2103.17239); None for no scales.
      encoding: makes a module that is applied before each branch, such as a position encoding,
        given its `name` and `dtype`; None for no such module.
      points: where noise can enter this block.
      dropout: rate of the dropout inside attention and MLP.
      drop_path: rate at which stochastic depth leaves out each residual branch.
      train: whether both are on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    attention: Callable[..., nn.Module]
    mlp_dim: int
    mlp: Callable[..., nn.Module] = Mlp
    norm: Callable[..., nn.Module] = layer_norm
    post_norm: bool = False
    layer_scale: float | None = None
    encoding: Callable[..., nn.Module] | None = None
    points: tuple[noise.Point, ...] = ("block_input", "attention_input")
    dropout: float = 0.0
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: noise.Taps) -> jax.Array:
        """Maps x (batch, tokens, dim), or what the attention accepts, to the same shape."""
        common = {"dropout": self.dropout, "train": self.train, "dtype": self.dtype}
        x = self._tapped(x, taps, "block_input")
        x = self._encoded(x, "cpe1")
        norm = self.norm(dtype=self.dtype, name="norm1")
        h = self._tapped(x if self.post_norm else norm(x), taps, "attention_input")
        h = self.attention(**common, name="attn")(h)
        h = self._scaled(norm(h) if self.post_norm else h, "gamma_1")
        x = x[:, : h.shape[1]] + DropPath(self.drop_path, self.train, name="drop_path1")(h)
        x = self._encoded(x, "cpe2")
        norm = self.norm(dtype=self.dtype, name="norm2")
        mlp = self.mlp(hidden_dim=self.mlp_dim, **common, name="mlp")
        h = norm(mlp(x)) if self.post_norm else mlp(norm(x))
        h = self._scaled(h, "gamma_2")
        return x + DropPath(self.drop_path, self.train, name="drop_path2")(h)

    def _tapped(self, x: jax.Array, taps: noise.Taps, point: noise.Point) -> jax.Array:
        return taps(x, layer=self.layer, point=point) if point in self.points else x

    def _encoded(self, x: jax.Array, name: str) -> jax.Array:
        return x if self.encoding is None else self.encoding(dtype=self.dtype, name=name)(x)

    def _scaled(self, h: jax.Array, name: str) -> jax.Array:
        if self.layer_scale is None:
            return h
        init = nn.initializers.constant(self.layer_scale)
        scale = self.param(name, init, (h.shape[-1],), jnp.float32)
        return scale.astype(self.dtype)[None, None] * h


def drop_path_rates(rate: float, depth: int) -> tuple[float, ...]:
    """Stochastic-depth rates of the blocks, linear from 0 in the first to `rate` in the last."""
    return tuple(np.linspace(0.0, rate, depth).tolist())


def relative_position_index(height: int, width: int) -> np.ndarray:
    """The row in a table of relative positions for each pair of positions in a grid.

    Args:
      height, width: of the grid.

    Returns:
      (height * width, height * width) int: the first axis' position relative to the second's, as a
      number below (2 * height - 1) * (2 * width - 1): row after row, the most negative first.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    down = rows[:, None] - rows + height - 1
    right = columns[:, None] - columns + width - 1
    return down * (2 * width - 1) + right


def stage_and_number(layer: int, stage_sizes: Sequence[int]) -> tuple[int, int]:
    """The stage of a layer, counted over all stages, and its number in that stage, all from 1."""
    stage, number = 1, layer
    while number > stage_sizes[stage - 1]:
        number -= stage_sizes[stage - 1]
        stage += 1
    return stage, number


class Staged:
    """The layers of a `Classifier` with stages: its blocks, counted from 1 over all stages.

    It must be the first base of such a model, whose field `stage_sizes` is the number of blocks of
    each stage.
    """

    stage_sizes: tuple[int, ...]

    @property
    def num_layers(self) -> int:
        return sum(self.stage_sizes)

    @nn.nowrap
    def layer_name(self, layer: int) -> str:
        stage, number = stage_and_number(layer, self.stage_sizes)
        return f"stage{stage}_block{number}"
