"""Base classes of models whose tokens are patches of the image."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from pnoise_jax import parallel
from pnoise_jax.models import checks
from pnoise_jax.models.classifier import Classifier
from pnoise_jax.models.parts import attention_kernels, convolutions, layers


class Transformer(Classifier, kw_only=True):
    """A classifier that cuts images into patches and makes each a token.

    Has the attributes of every `Classifier`, and these:

    Attributes:
      image_size: the images' side, or (height, width), in pixels; multiples of `patch_size`.
      patch_size: side of a patch in pixels.
      dim: features of a token.
      dropout: rate after the embedding, the attention's projection and each layer of the MLP:
        timm's `pos_drop_rate` and `proj_drop_rate`. Draws from the "dropout" stream.
      attention_kernel: what computes the attention: "xla"; "cudnn", flash attention on NVIDIA GPUs
        in bfloat16 or float16; or "auto", cuDNN in the layers where it is possible.
      key_gate: the `key_gate` of the last block's `Attention`; set by tasks, not by configs.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    dim: int = 768
    dropout: float = 0.0
    attention_kernel: str = "xla"
    key_gate: Callable[..., nn.Module] | None = None

    points = ("image", "block_input", "attention_input")

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.image_shape(self.image_size)
        checks.require_positive(patch_size=self.patch_size, dim=self.dim)
        checks.require_rate(dropout=self.dropout)
        attention_kernels.require_kernel(self.attention_kernel)
        checks.require_whole_patches(self.image_size, self.image_shape, self.patch_size)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return checks.image_shape(self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        height, width = self.image_shape
        return height // self.patch_size, width // self.patch_size

    @nn.nowrap
    def embed_patches(self, images: jax.Array, *, use_bias: bool = True) -> jax.Array:
        """Turns each patch of the images into a token, (batch, patches, dim), row after row."""
        patch = (self.patch_size, self.patch_size)
        x = nn.Conv(
            self.dim,
            patch,
            strides=patch,
            padding="VALID",
            use_bias=use_bias,
            kernel_init=layers.conv_init,
            conv_general_dilated=convolutions.patchwise,
            dtype=self.dtype,
            name="patch_embed",
        )(images)
        return x.reshape(x.shape[0], -1, self.dim)

    @property
    def last_grid(self) -> tuple[int, int]:
        """Rows and columns of the patches after the last block."""
        return self.grid

    @nn.nowrap
    def run_norm(self, x: jax.Array) -> jax.Array:
        """Applies the head's final norm to tokens; returns (batch, tokens, dim) float32."""
        raise NotImplementedError(f"{type(self).__name__} has no run_norm, which run_map needs")

    @nn.nowrap
    def run_map(self, x: jax.Array) -> jax.Array:
        """The patch tokens after the final norm, in their rows and columns."""
        rows, columns = self.last_grid
        x = self.run_norm(x)[:, -rows * columns :]  # learned tokens come before them
        return x.reshape(x.shape[0], rows, columns, x.shape[-1])

    @nn.nowrap
    def encoder_block(
        self, layer: int, train: bool, *, kind: type[nn.Module] = layers.Block, **options: Any
    ) -> nn.Module:
        """Makes a layer's block of this kind; families differ in `options`, its attributes."""
        if self.key_gate is not None and layer == self.num_layers:
            options["attention"] = functools.partial(options["attention"], key_gate=self.key_gate)
        if self.attention_kernel != "xla":
            kernel = self.attention_kernel
            options["attention"] = functools.partial(options["attention"], kernel=kernel)
        block: Callable[..., nn.Module] = nn.remat(kind) if self.remat else kind
        return block(
            layer=layer,
            dropout=self.dropout,
            drop_path=layers.drop_path_rates(self.drop_path, self.num_layers)[layer - 1],
            train=train,
            dtype=self.dtype,
            name=self.layer_name(layer),
            **options,
        )


class IsotropicTransformer(Transformer, kw_only=True):
    """A transformer whose blocks all have the same number of features, heads and tokens.

    Has the attributes of every `Transformer`, and these:

    Attributes:
      dim: features of a token; a multiple of `num_heads`.
      depth: number of blocks, named block_1 … block_N and addressed by that number.
      num_heads: attention heads of each block.
      mlp_dim: hidden features of each MLP; 4 * dim if None.
      all_tokens: whether the last block computes every token. By default it computes only the
        tokens that the head reads, if these are the first ones, such as the class token; the others
        still take part in its attention. The logits are the same up to rounding, 12 blocks take 8 %
        less work, and an `Injection` is not affected, because it enters before that attention.
        Interceptors, and so a `noise.InjectedModule`, see only those tokens after the attention. In
        that block they see no call of the projection to queries, keys and values, which is folded
        into the query, unless a run sets `reduce_dtype`.
    """

    depth: int = 12
    num_heads: int = 12
    mlp_dim: int | None = None
    all_tokens: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(
            depth=self.depth, num_heads=self.num_heads, mlp_dim=self.mlp_features
        )
        checks.require_equal_heads(self.dim, self.num_heads)

    @property
    def mlp_features(self) -> int:
        """Hidden features of each MLP."""
        return 4 * self.dim if self.mlp_dim is None else self.mlp_dim

    @property
    def num_layers(self) -> int:
        return self.depth

    @nn.nowrap
    def head_is_of(self, family: type) -> bool:
        """Whether blocks and head are those of `family`, and not overridden by a subclass.

        A subclass may read more tokens.
        """
        methods = ("run_block", "encoder_block", "run_norm", "run_features", "run_head")
        return all(getattr(type(self), name) is getattr(family, name) for name in methods)

    @property
    def block_split(self) -> parallel.MatmulSplit:
        """`matmul_split` of models whose blocks are `layers.Block` with `Attention`."""
        return parallel.MatmulSplit(
            by_head=("attn/qkv",),
            columns=("mlp/fc1",),
            rows=("attn/proj", "mlp/fc2"),
            between=("attn", "mlp"),
            sizes={"num_heads": self.num_heads, "mlp_dim": self.mlp_features},
        )
