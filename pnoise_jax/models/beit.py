"""BEiT (https://arxiv.org/abs/2106.08254) for classification, equal to timm's `beit`."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import noise
from pnoise_jax.models import checks, layers


class Block(nn.Module, kw_only=True):
    """A pre-norm encoder block whose attention knows positions, and whose branches are scaled.

    Attributes:
      layer: number of this block, from 1: how an injection addresses it.
      grid: rows and columns of the patches, which stand behind one class token.
      num_heads: number of attention heads.
      mlp_dim: hidden features of the MLP.
      layer_scale: initial value of both scales, one for each feature.
      dropout: rate of the dropout inside attention and MLP.
      drop_path: rate at which stochastic depth leaves out each residual branch.
      train: whether both are on.
      dtype: dtype of the computation; parameters are float32.
    """

    layer: int
    grid: tuple[int, int]
    num_heads: int
    mlp_dim: int
    layer_scale: float
    dropout: float = 0.0
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, taps: Any) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape; `taps` are `noise.open_taps`'s."""
        common = {"dropout": self.dropout, "train": self.train, "dtype": self.dtype}
        scale_init = nn.initializers.constant(self.layer_scale)
        scale1, scale2 = (
            self.param(name, scale_init, (x.shape[-1],)).astype(self.dtype)
            for name in ("gamma_1", "gamma_2")
        )
        # The branches' last layers begin smaller the deeper they are.
        last_init = nn.initializers.normal(0.02 / math.sqrt(2 * self.layer))

        x = taps(x, layer=self.layer, point="block_input")
        h = layers.layer_norm(dtype=self.dtype, name="norm1")(x)
        h = taps(h, layer=self.layer, point="attention_input")
        h = layers.Attention(
            num_heads=self.num_heads, key_bias=False, proj_init=last_init, **common, name="attn"
        )(h, self._position_bias())
        x = x + layers.DropPath(self.drop_path, self.train, name="drop_path1")(scale1 * h)
        h = layers.layer_norm(dtype=self.dtype, name="norm2")(x)
        h = layers.Mlp(hidden_dim=self.mlp_dim, out_init=last_init, **common, name="mlp")(h)
        return x + layers.DropPath(self.drop_path, self.train, name="drop_path2")(scale2 * h)

    def _position_bias(self) -> jax.Array:
        """What attention's logits are raised by, (1, heads, tokens, tokens), float32."""
        index = _relative_position_index(self.grid)
        shape = (index.max() + 1, self.num_heads)
        table = self.param("relative_position_bias_table", nn.initializers.zeros, shape)
        return table[index].transpose(2, 0, 1)[None]


class Beit(nn.Module, kw_only=True):
    """BEiT for classification, the same function as timm's `Beit` without absolute positions.

    The head reads the mean of the patch tokens, normalised after it.

    Attributes:
      num_classes: number of logits.
      image_size: the images' side, or (height, width), in pixels; multiples of `patch_size`.
      patch_size: side of a patch in pixels.
      dim: features of a token; a multiple of `num_heads`.
      depth: number of blocks, named block_1 … block_N and addressed by that number.
      num_heads: attention heads of each block.
      mlp_dim: hidden features of each MLP; 4 * dim if None.
      layer_scale: initial value of the scale of each residual branch.
      dropout: rate after the embedding, the attention's projection and each layer of the MLP:
        timm's `pos_drop_rate` and `proj_drop_rate`. Draws from the "dropout" stream.
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
    layer_scale: float = 0.1
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32
    injection: noise.Injection | None = None

    points = ("image", "block_input", "attention_input")  # where an injection may enter
    prefix_tokens = 1  # the class token, which takes part in attention alone

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

    @nn.nowrap
    def attention_grid(self, layer: int) -> tuple[int, int]:
        """Rows and columns of the patches whose relative positions this layer's table holds."""
        height, width = self.image_shape
        return height // self.patch_size, width // self.patch_size

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
        token = self.param("cls_token", layers.normal_init, (1, 1, self.dim))
        x = layers.prepend_token(token, x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)

        block = nn.remat(Block) if self.remat else Block
        for layer, rate in enumerate(layers.drop_path_rates(self.drop_path, self.depth), start=1):
            x = block(
                layer=layer,
                grid=self.attention_grid(layer),
                num_heads=self.num_heads,
                mlp_dim=4 * self.dim if self.mlp_dim is None else self.mlp_dim,
                layer_scale=self.layer_scale,
                dropout=self.dropout,
                drop_path=rate,
                train=train,
                dtype=self.dtype,
                name=self.layer_name(layer),
            )(x, taps)

        x = x[:, self.prefix_tokens :].astype(jnp.float32).mean(axis=1)
        x = layers.layer_norm(name="fc_norm")(x)
        head_init = nn.initializers.normal(0.001 * 0.02)  # timm's `head_init_scale`
        return nn.Dense(self.num_classes, kernel_init=head_init, name="head")(x)


def _relative_position_index(grid: tuple[int, int]) -> np.ndarray:
    """Each pair of tokens' row of the table, (tokens, tokens): the class token stands first.

    The table's last three rows are for the pairs (class, patch), (patch, class), (class, class).
    """
    rows, columns = grid
    pairs = (2 * rows - 1) * (2 * columns - 1)
    index = np.pad(layers.relative_position_index(rows, columns), ((1, 0), (1, 0)))
    index[0, :], index[:, 0], index[0, 0] = pairs, pairs + 1, pairs + 2
    return index
