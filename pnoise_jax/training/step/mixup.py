"""Mixup and CutMix on the devices: each training example is mixed from two."""

import dataclasses

import jax
import jax.numpy as jnp

from pnoise_jax import noise


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899).

    Every example of a batch is mixed with the one two places before it, cyclically, with one share
    for the whole batch. This is timm's "batch" mode, except that timm takes the partner from the
    reversed batch. If the batch is sharded over devices, only two images cross each boundary. The
    partner is two places away because the paper's cyclic shift mixes each example with the next:
    with the same partner, the noise would inject features whose label is part of the target.

    Attributes:
      alpha: parameter of Mixup's Beta(alpha, alpha); 0 turns Mixup off.
      cutmix_alpha: parameter of CutMix's beta distribution; 0 turns CutMix off.
      probability: the probability of mixing a batch.
      switch_probability: the probability of mixing by CutMix if both are on.
      layer: the layer whose input Mixup mixes, through `draw_share` and `injection`: Manifold Mixup
        (https://arxiv.org/abs/1806.05236). 0 mixes the images.
    """

    alpha: float = 0.0
    cutmix_alpha: float = 0.0
    probability: float = 1.0
    switch_probability: float = 0.5
    layer: int = 0

    def __post_init__(self):
        if not self.layer:
            return
        if self.cutmix_alpha > 0:
            raise ValueError(
                f"mixup.layer={self.layer}, mixup.cutmix_alpha={self.cutmix_alpha}: CutMix pastes "
                "boxes of pixels, which layers do not have; set mixup.layer=0, or "
                "mixup.cutmix_alpha=0"
            )
        if not self.is_on:
            raise ValueError(
                f"mixup.layer={self.layer}, but mixup is off; set mixup.alpha and "
                "mixup.probability above 0, or mixup.layer=0"
            )

    @property
    def is_on(self) -> bool:
        """Whether anything is ever mixed."""
        return self.probability > 0 and max(self.alpha, self.cutmix_alpha) > 0

    def __call__(
        self, key: jax.Array, images: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mixes a batch.

        Args:
          key: the random key for this batch.
          images: (batch, height, width, channels), float.
          targets: (batch, classes), the target probabilities.

        Returns:
          Images and targets of the same shapes.
        """
        keys = jax.random.split(key, 5)
        mixed = self._draw_whether(keys)
        both = min(self.alpha, self.cutmix_alpha) > 0
        share_of_cutmix = self.switch_probability if both else float(self.cutmix_alpha > 0)
        cut = jax.random.bernoulli(keys[1], jnp.float32(share_of_cutmix))

        share = jnp.ones((), jnp.float32)  # the share of the example itself
        _, height, width, _ = images.shape
        box = jnp.zeros((height, width), bool)  # the pixels to replace by the partner's
        if self.alpha > 0:
            share = jnp.where(cut, share, self._draw_mixup(keys))
        if self.cutmix_alpha > 0:
            alpha = self.cutmix_alpha
            drawn = jax.random.beta(keys[3], alpha, alpha, (), jnp.float32)
            box = _box(keys[4], (height, width), 1 - drawn) & cut
        share, box = jnp.where(mixed, share, 1.0), box & mixed

        blended = mix_with_partners(images, share)
        images = jnp.where(box[:, :, None], _partners(images), blended).astype(images.dtype)
        share = share * (1 - box.mean(dtype=jnp.float32))  # one of the two is 1
        return images, mix_with_partners(targets, share)

    def draw_share(self, key: jax.Array) -> jax.Array:
        """Draw the share of itself that an example keeps if a layer is mixed, a scalar in [0, 1].

        It equals the share for images with the same key if only Mixup is on.
        """
        keys = jax.random.split(key, 5)
        return jnp.where(self._draw_whether(keys), self._draw_mixup(keys), 1.0)

    def injection(self, batch: int) -> noise.Injection:
        """The injection that mixes the input of `layer`; its strength is the partner's share.

        Args:
          batch: the number of examples, which determines the distance of the partner.
        """
        quality = noise.CyclicShift(1.0, shift=_distance(batch))
        return noise.Injection(noise.LinearTransform(quality), layer=self.layer, section="mixup")

    def _draw_whether(self, keys: jax.Array) -> jax.Array:
        return jax.random.bernoulli(keys[0], jnp.float32(self.probability))

    def _draw_mixup(self, keys: jax.Array) -> jax.Array:
        return jax.random.beta(keys[2], self.alpha, self.alpha, (), jnp.float32)


def mix_with_partners(x: jax.Array, share: jax.Array) -> jax.Array:
    """Mix each row of x, (batch, ...), with its partner; `share` is the share of the row itself."""
    return share * x + (1 - share) * _partners(x)


def _partners(x: jax.Array) -> jax.Array:
    return jnp.roll(x, _distance(len(x)), axis=0)


def _distance(batch: int) -> int:
    return 2 if batch > 2 else 1


def _box(key: jax.Array, size: tuple[int, int], area: jax.Array) -> jax.Array:
    """A mask (height, width) of a box with this share of the area, clipped at the image's edges.

    Its centre is uniform over the pixels, and its sides have the image's proportions, as in the
    paper.
    """
    inside = []
    for number, side in enumerate(size):
        half = (jnp.floor(side * jnp.sqrt(area)) // 2).astype(jnp.int32)
        middle = jax.random.randint(jax.random.fold_in(key, number), (), 0, side, jnp.int32)
        pixels = jnp.arange(side, dtype=jnp.int32)
        inside.append((pixels >= middle - half) & (pixels < middle + half))
    return inside[0][:, None] & inside[1][None, :]
