"""Taps: the places in a model where its injection's noise may enter."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pnoise_jax.noise.injection import Injection, Point


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("key", "chosen", "mask", "strength", "index"),
    meta_fields=("injection", "num_layers", "prefix_tokens"),
)
@dataclasses.dataclass(frozen=True)
class Taps:
    """An injection made ready for one call of a model; a pytree, so remat and scan can take it.

    Attributes:
      injection: what acts in this call, or None.
      num_layers, prefix_tokens: of the model; prefix tokens stand in front of the patch tokens.
      key: for noises that draw, or None.
      chosen: the layer drawn for ``layer="random"``, a scalar, or None.
      mask, strength, index: handed to the noise.
    """

    injection: Injection | None
    num_layers: int
    prefix_tokens: int
    key: jax.Array | None
    chosen: jax.Array | None
    mask: jax.Array | None
    strength: jax.Array | float | None
    index: jax.Array | None

    def __call__(self, x: jax.Array, *, point: Point, layer: int = 0) -> jax.Array:
        """x, with the noise where the injection acts at this layer and point.

        Args:
          x: the image (batch, height, width, channels), or a representation: (batch, tokens, dim)
            or (batch, height, width, channels).
          point: which point of the layer this is.
          layer: its number, from 1; not needed for the image.
        """
        injection = self.injection
        if injection is None or point != injection.point:
            return x
        if point == "image":
            return self._inject(x, 0, prefix_tokens=0)
        if layer not in injection.layers(self.num_layers):
            return x
        inject = functools.partial(self._inject, layer=layer, prefix_tokens=self.prefix_tokens)
        if self.chosen is not None:
            return lax.cond(self.chosen == layer, inject, lambda x: x, x)
        return inject(x)

    def _inject(self, x: jax.Array, layer: int, prefix_tokens: int) -> jax.Array:
        skip = prefix_tokens if self.injection.tokens == "patch" else 0
        prefix, clean = x[:, :skip], x[:, skip:]
        key = None if self.key is None else jax.random.fold_in(self.key, layer)
        noisy = self.injection.noise(
            key, clean, mask=self.mask, strength=self.strength, index=self.index
        )
        if self.injection.stop_gradient:
            noisy = clean + lax.stop_gradient(noisy - clean)
        return jnp.concatenate([prefix, noisy], axis=1) if skip else noisy


def open_taps(
    module: Any,
    injection: Injection | None,
    *,
    num_layers: int,
    train: bool,
    mask: jax.Array | None = None,
    strength: jax.Array | float | None = None,
    index: jax.Array | None = None,
    prefix_tokens: int = 0,
) -> Taps:
    """Readies ``injection`` for one call of a Linen ``module``.

    It is inactive while the module is initialised, and where the injection does not act in this
    mode: then the taps add no operation, and the model is bitwise the plain one.

    Args:
      module: the model; its attribute ``points``, if it has one, lists the points it taps.
      injection: what may act.
      num_layers, prefix_tokens: of the model.
      train: the mode of this call.
      mask, strength, index: handed to the noise.

    Raises:
      ValueError: the model lacks the injection's layer or point, or the noise draws and the call
        has no "noise" key.
    """
    if injection is not None:
        points = getattr(module, "points", (injection.point,))
        injection.validate(num_layers=num_layers, points=points)
    acts = injection is not None and (injection.train if train else injection.inference)
    if not acts or module.is_initializing():
        return Taps(None, num_layers, prefix_tokens, None, None, None, None, None)
    key = chosen = None
    draws_layer = injection.layer == "random" and injection.point != "image"
    if injection.noise.draws or draws_layer:
        key = noise_key(module)
    if draws_layer:
        chosen = jax.random.randint(jax.random.fold_in(key, 0), (), 1, num_layers + 1, jnp.int32)
        axis_name = injection.noise.axis_name
        if axis_name is not None:  # all devices must agree: their noise may exchange rows
            chosen = lax.all_gather(chosen, axis_name)[0]
    return Taps(injection, num_layers, prefix_tokens, key, chosen, mask, strength, index)


def noise_key(module: Any) -> jax.Array:
    """The module's "noise" key; unlike ``make_rng`` alone, never the "params" key in its stead."""
    if not module.has_rng("noise"):
        raise ValueError(
            "this injection is random and the call has no key for it: "
            "give apply(..., rngs={'noise': jax.random.key(seed)})"
        )
    return module.make_rng("noise")
