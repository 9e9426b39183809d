"""Taps: the places in a model where its injections' noise may enter."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pnoise_jax.noise import checks
from pnoise_jax.noise.injection import Injection, Point
from pnoise_jax.noise.several import as_injections


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("key", "chosen", "strength"),
    meta_fields=("injection",),
)
@dataclasses.dataclass(frozen=True)
class _Active:
    """An injection that acts in one call of a model.

    Attributes:
      injection: what acts.
      key: for noises that draw, or None.
      chosen: the layer drawn for ``layer="random"``, a scalar, or None.
      strength: handed to the noise.
    """

    injection: Injection
    key: jax.Array | None
    chosen: jax.Array | None
    strength: jax.Array | float | None


class _Passed(set):
    """Points and layers that a call has passed, noted while it is traced; equal to itself alone."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


_NOTHING = _Passed()  # of all taps without noise, which therefore are the same to a cache


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("active", "mask", "index"),
    meta_fields=("num_layers", "prefix_tokens", "passed"),
)
@dataclasses.dataclass(frozen=True)
class Taps:
    """Injections made ready for one call of a model; a pytree, so remat and scan can take it.

    Attributes:
      active: the injections that act in this call, in the order in which they act at one place.
      num_layers, prefix_tokens: of the model; prefix tokens stand in front of the patch tokens.
      mask, index: handed to the noises.
      passed: the points and layers at which the model has called the taps.
    """

    active: tuple[_Active, ...]
    num_layers: int
    prefix_tokens: int
    mask: jax.Array | None = None
    index: jax.Array | None = None
    passed: _Passed = dataclasses.field(default_factory=_Passed)

    def __call__(self, x: jax.Array, *, point: Point, layer: int = 0) -> jax.Array:
        """x, with the noise of every injection that acts at this layer and point.

        Args:
          x: the image (batch, height, width, channels), or a representation: (batch, tokens, dim)
            or (batch, height, width, channels).
          point: which point of the layer this is.
          layer: its number, from 1; not needed for the image.
        """
        if self.active:
            self._note(point, layer)
        for active in self.active:
            if point != active.injection.point:
                continue
            if point == "image":
                x = self._inject(x, active, 0, prefix_tokens=0)
            elif layer in active.injection.layers(self.num_layers):
                inject = functools.partial(
                    self._inject, active=active, layer=layer, prefix_tokens=self.prefix_tokens
                )
                drawn = active.chosen is not None
                x = lax.cond(active.chosen == layer, inject, _same, x) if drawn else inject(x)
        return x

    def _note(self, point: Point, layer: int) -> None:
        if isinstance(layer, jax.Array):
            raise ValueError(
                f"taps(x, point={point!r}, layer={layer}): give the layer's number as a Python "
                "int; where layers are scanned over, their noise has no layer to enter"
            )
        self.passed.add((point, layer))

    def require_passed(self, layer: int, *, model: str) -> None:
        """Raises ValueError where noise acts at a layer, and its point has not been passed there.

        What was passed is forgotten, so that a block answers for its own layer alone.

        Args:
          layer: from 1; its block has just been computed.
          model: its class, for the error.
        """
        for active in self.active:
            point = active.injection.point
            acts = point != "image" and layer in active.injection.layers(self.num_layers)
            if acts and (point, layer) not in self.passed:
                raise ValueError(
                    f"the block of layer {layer} of {model} has not called taps(x, "
                    f"point={point!r}, layer={layer}), so the noise of "
                    f"{active.injection.section} does not enter: let run_block call it, or leave "
                    f"{point!r} out of the model's points"
                )
        self.passed.clear()

    def _inject(self, x: jax.Array, active: _Active, layer: int, prefix_tokens: int) -> jax.Array:
        injection = active.injection
        skip = prefix_tokens if injection.tokens == "patch" else 0
        prefix, clean = x[:, :skip], x[:, skip:]
        key = None if active.key is None else jax.random.fold_in(active.key, layer)
        pixels = injection.pixels
        noisy = injection.noise(
            key,
            entering := clean if pixels is None else pixels.to_pixels(clean),
            mask=self.mask,
            strength=active.strength,
            index=self.index,
        )
        if pixels is not None:
            noisy = pixels.add(clean, entering, noisy)
        if injection.stop_gradient:
            noisy = clean + lax.stop_gradient(noisy - clean)
        return jnp.concatenate([prefix, noisy], axis=1) if skip else noisy


def _same(x: jax.Array) -> jax.Array:
    return x


def open_taps(
    module: Any,
    injection: Injection | Sequence[Injection] | None,
    *,
    num_layers: int,
    train: bool,
    mask: jax.Array | None = None,
    strength: jax.Array | float | Sequence[jax.Array | float] | None = None,
    index: jax.Array | None = None,
    prefix_tokens: int = 0,
) -> Taps:
    """Readies one injection, or several, for one call of a Linen ``module``.

    They are inactive while the module is initialised, and where they do not act in this mode: then
    the taps add no operation, and the model is bitwise the plain one. Each injection draws from a
    key of its own, which depends on its position among all of them, whether the others act or not.

    Args:
      module: the model; its attribute ``points``, if it has one, lists the points it taps.
      injection: what may act.
      num_layers, prefix_tokens: of the model.
      train: the mode of this call.
      mask, index: handed to the noises.
      strength: in place of the noise's own, which None keeps; of several injections one each.

    Raises:
      ValueError: the model lacks an injection's layer or point, a noise draws and the call has no
        "noise" key, or there is another number of strengths than of injections.
    """
    injections = as_injections(injection)
    for each in injections:
        points = getattr(module, "points", (each.point,))
        each.validate(num_layers=num_layers, points=points)
    strengths = _per_injection(strength, len(injections))
    acting = [
        position
        for position, each in enumerate(injections)
        if (each.train if train else each.inference) and not module.is_initializing()
    ]
    if not acting:
        return Taps((), num_layers, prefix_tokens, passed=_NOTHING)
    drawn = any(injections[n].noise.draws or injections[n].draws_layer for n in acting)
    key = noise_key(module) if drawn else None
    active = tuple(
        _activate(injections[n], _key_at(key, n), strengths[n], num_layers) for n in acting
    )
    return Taps(active, num_layers, prefix_tokens, mask, index)


def _activate(
    injection: Injection,
    key: jax.Array | None,
    strength: jax.Array | float | None,
    num_layers: int,
) -> _Active:
    if not (injection.noise.draws or injection.draws_layer):
        return _Active(injection, None, None, strength)
    if not injection.draws_layer:
        return _Active(injection, key, None, strength)
    layer_key = jax.random.fold_in(checks.require_key(key), 0)
    chosen = jax.random.randint(layer_key, (), 1, num_layers + 1, jnp.int32)
    axis_name = injection.noise.axis_name
    if axis_name is not None:  # all devices must agree: their noise may exchange rows
        chosen = lax.all_gather(chosen, axis_name)[0]
    return _Active(injection, key, chosen, strength)


def _key_at(key: jax.Array | None, position: int) -> jax.Array | None:
    """The key of the injection at a position; the first has the model's own."""
    if key is None or position == 0:
        return key
    # Counted from the end, as the first injection folds in the numbers of layers, from 0.
    return jax.random.fold_in(key, np.uint32(2**32 - position))


def _per_injection(strength: Any, count: int) -> tuple[Any, ...]:
    """The strength of each injection."""
    if strength is None:
        return (None,) * count
    if count == 0:
        raise ValueError(
            f"noise_strength={strength!r}, but the model has no injection, so there is no noise: "
            "create it with one, or leave noise_strength out"
        )
    several = isinstance(strength, tuple | list)
    shape = (len(strength),) if several else jnp.shape(strength)
    if count == 1 and shape == ():
        return (strength,)
    if shape != (count,):
        raise ValueError(
            f"strength: got shape {shape} for {count} injection{'s' * (count > 1)}; give "
            + ("a scalar" if count == 1 else f"one for each, as a tuple or an array ({count},)")
        )
    return tuple(strength[n] for n in range(count))


def noise_key(module: Any) -> jax.Array:
    """The module's "noise" key; unlike ``make_rng`` alone, never the "params" key in its stead."""
    if not module.has_rng("noise"):
        raise ValueError(
            "this injection is random and the call has no key for it: "
            "give apply(..., rngs={'noise': jax.random.key(seed)})"
        )
    return module.make_rng("noise")
