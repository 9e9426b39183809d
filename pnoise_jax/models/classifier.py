"""What all models have alike: common options, how they are called, where noise enters."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise
from pnoise_jax.models import checks


class Classifier(nn.Module, kw_only=True):
    """An image classifier into which an injection's noise may enter.

    A family of models, ours or your own, is a subclass with `num_layers`, `layer_name` and
    `logits`. Its blocks are submodules; each begins with ``x = taps(x, point="block_input",
    layer=self.layer)``, so that noise can enter there.

    Attributes:
      num_classes: number of logits.
      drop_path: rate of stochastic depth in the last block; it grows evenly from 0 in the first,
        as timm's `drop_path_rate`. Draws from the "dropout" stream.
      remat: recompute each block in the backward pass instead of keeping its activations.
      dtype: dtype of the blocks' computation. Parameters, statistics, the final norm and the head,
        and so the logits, are float32.
      injection: where noise enters, and which; None for the plain model.

    Raises:
      ValueError: at construction, if options contradict each other.
    """

    num_classes: int = 1000
    drop_path: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32
    injection: noise.Injection | None = None

    points = ("image", "block_input")  # where an injection may enter
    prefix_tokens = 0  # how many learned tokens stand in front of the patch tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(num_classes=self.num_classes)
        checks.require_rate(drop_path=self.drop_path)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of the images, in pixels; None where a model takes any."""
        return None

    @property
    def num_layers(self) -> int:
        """Number of layers that an injection can address: the blocks, over all stages."""
        raise NotImplementedError

    @nn.nowrap
    def layer_name(self, layer: int) -> str:
        """Name of the submodule that is this layer, counted from 1.

        What follows the layer must depend on its input alone: an audit goes on from there.
        """
        raise NotImplementedError

    @nn.nowrap
    def logits(self, images: jax.Array, taps: noise.Taps, *, train: bool) -> jax.Array:
        """What `__call__` returns, for images of the right size that have passed their tap.

        Args:
          images: (batch, height, width, channels), float.
          taps: to be called at each point of a layer where noise may enter.
          train: turns on dropout and the like.

        Returns:
          (batch, num_classes), float32.
        """
        raise NotImplementedError

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
          train: turns on dropout, stochastic depth, the injection's training noise, and batch
            norms' own statistics.
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
        return self.logits(taps(images, point="image"), taps, train=train)
