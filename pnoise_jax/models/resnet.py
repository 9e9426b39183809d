"""ResNet v1.5 (https://arxiv.org/abs/1512.03385), equal to timm's and torchvision's `resnet`.

"1.5" means that a bottleneck block that shrinks the image does so in its 3x3 convolution.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from pnoise_jax import noise
from pnoise_jax.models import checks
from pnoise_jax.models.classifier import Classifier
from pnoise_jax.models.parts import convolutions, layers

_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(features: int, kernel: int, stride: int = 1, *, dtype: Any, name: str) -> nn.Conv:
    """A square convolution without bias, padded equally on all sides, as in PyTorch."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((kernel // 2, kernel // 2),) * 2,
        use_bias=False,
        kernel_init=_conv_init,
        conv_general_dilated=convolutions.pointwise if kernel == 1 else convolutions.of_images,
        dtype=dtype,
        name=name,
    )


def _max_pool(x: jax.Array) -> jax.Array:
    """The maxima of 3x3 pixels around every second pixel, (batch, height, width, channels)."""
    # Flax annotates the padding as a str alone.
    padding = cast("str", ((1, 1), (1, 1)))
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


def _max_pool_by_slices(x: jax.Array) -> jax.Array:
    """The same as `_max_pool`, even in the gradients of equal values; faster in training on CPUs.

    There, XLA scatters the gradient of its own pooling value by value.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    for axis in (2, 1):  # in this order, the first of equal values gets the gradient, row by row
        last = (x.shape[axis] - 3) // 2 * 2
        slices = (lax.slice_in_dim(x, n, n + last + 1, stride=2, axis=axis) for n in range(3))
        x = functools.reduce(_larger, slices)
    return x


def _larger(x: jax.Array, y: jax.Array) -> jax.Array:
    """The larger of two values, the first if they are equal, and NaN if either is NaN."""
    return jnp.where((x >= y) | jnp.isnan(x), x, y)


class ResidualBlock(nn.Module, kw_only=True):
    """A residual block: two 3x3 convolutions ("basic"), or 1x1, 3x3, 1x1 ("bottleneck").

    Attributes:
      layer: number of this block in the whole model, from 1, by which an injection addresses it.
      kind: "basic" or "bottleneck".
      width: features inside the block; a bottleneck outputs four times as many.
      stride: 2 halves the image.
      norm: makes a batch norm, given its name.
      zero_init_residual: whether to start as the identity: the last norm's scale starts at zero.
      drop_path: rate at which stochastic depth leaves out the residual branch.
      train: whether it is on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    kind: str
    width: int
    stride: int
    norm: Callable[..., nn.Module]
    zero_init_residual: bool = True
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: Any) -> jax.Array:
        """Maps x (batch, height, width, channels) to (batch, height', width', channels')."""
        conv = functools.partial(_conv, dtype=self.dtype)
        scale_init = nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones
        last_norm = functools.partial(self.norm, scale_init=scale_init)
        features = self.width if self.kind == "basic" else 4 * self.width

        x = taps(x, layer=self.layer, point="block_input")
        if self.kind == "basic":
            h = conv(self.width, 3, self.stride, name="conv1")(x)
            h = nn.relu(self.norm(name="bn1")(h))
            h = conv(features, 3, name="conv2")(h)
            h = last_norm(name="bn2")(h)
        else:
            h = conv(self.width, 1, name="conv1")(x)
            h = nn.relu(self.norm(name="bn1")(h))
            h = conv(self.width, 3, self.stride, name="conv2")(h)
            h = nn.relu(self.norm(name="bn2")(h))
            h = conv(features, 1, name="conv3")(h)
            h = last_norm(name="bn3")(h)
        if self.stride != 1 or x.shape[-1] != features:
            x = conv(features, 1, self.stride, name="downsample_conv")(x)
            x = self.norm(name="downsample_bn")(x)
        return nn.relu(layers.DropPath(self.drop_path, self.train, name="drop_path")(h) + x)


class ResNet(layers.Staged, Classifier, kw_only=True):
    """ResNet for classification, the same function as timm's `ResNet`.

    In training it updates the collection "batch_stats", which must then be mutable. The running
    variance follows the batch's own (biased) variance, as everywhere in Flax; PyTorch's follows
    the unbiased one, larger by n/(n-1) for n values per channel.

    Padded examples count in its batch norms, whatever the mask says.

    Has the attributes of every `Classifier`, and these:

    Attributes:
      stage_sizes: number of residual blocks of each stage; blocks are named stage1_block1, …,
        and an injection addresses them by their number from 1, counted over all stages.
      block: "basic" or "bottleneck".
      width: features of the stem and of the first stage; they double with each further stage.
      stem: "imagenet", a 7x7 convolution of stride 2 and a max-pooling, or "small", a 3x3
        convolution of stride 1 and no pooling, for images of 32 pixels or so.
      zero_init_residual: whether every residual block starts as the identity.
      axis_name: axis of `shard_map` or `pmap` over which batch norms share their statistics;
        under `jit` they use those of the global batch without it.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    block: str = "bottleneck"
    width: int = 64
    stem: str = "imagenet"
    zero_init_residual: bool = True
    axis_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(stage_sizes=self.stage_sizes, width=self.width)
        if self.block not in ("basic", "bottleneck"):
            raise ValueError(f'block={self.block!r} is unknown: use "basic" or "bottleneck"')
        if self.stem not in ("imagenet", "small"):
            raise ValueError(f'stem={self.stem!r} is unknown: use "imagenet" or "small"')

    @nn.nowrap
    def _norm(self, train: bool) -> Callable[..., nn.Module]:
        """Makes a batch norm, given its name."""
        return convolutions.batch_norm(
            train=train, epsilon=1e-5, axis_name=self.axis_name, dtype=self.dtype
        )

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = _conv(self.width, kernel, stride, dtype=self.dtype, name="conv1")(images)
        x = nn.relu(self._norm(train)(name="bn1")(x))
        if self.stem == "imagenet":
            x = lax.platform_dependent(x, cpu=_max_pool_by_slices, default=_max_pool)
        return x

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        stage, number = layers.stage_and_number(layer, self.stage_sizes)
        return block(
            layer=layer,
            kind=self.block,
            width=self.width * 2 ** (stage - 1),
            stride=2 if stage > 1 and number == 1 else 1,
            norm=self._norm(train),
            zero_init_residual=self.zero_init_residual,
            drop_path=layers.drop_path_rates(self.drop_path, self.num_layers)[layer - 1],
            train=train,
            dtype=self.dtype,
            name=self.layer_name(layer),
        )(x, taps)

    @property
    def head_init(self) -> nn.initializers.Initializer:
        # PyTorch's default for a dense layer: uniform within ±1/sqrt(fan_in).
        return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        return x.astype(jnp.float32).mean(axis=(1, 2))
