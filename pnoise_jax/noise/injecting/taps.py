"""Taps: the places in a model where its injections' noise can enter."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pnoise_jax.noise import checks
from pnoise_jax.noise.injecting.injection import Injection, Point
from pnoise_jax.noise.injecting.several import as_injections


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("key", "chosen", "strength"),
    meta_fields=("injection",),
)
@dataclasses.dataclass(frozen=True)
class _Active:
    """An injection that acts in one call of a model.

    Attributes:
      injection: the injection.
      key: for noises that draw, or None.
      chosen: the layer drawn for ``layer="random"``, a scalar, or None.
      strength: passed to the noise.
    """

    injection: Injection
    key: jax.Array | None
    chosen: jax.Array | None
    strength: jax.Array | float | None


class _Passed(set):
    """Points and layers that a call has passed, recorded during tracing; equal only to itself."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


_NOTHING = _Passed()  # shared by all taps without noise, so that a cache treats them as equal


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("active", "mask", "index"),
    meta_fields=("num_layers", "prefix_tokens", "passed"),
)
@dataclasses.dataclass(frozen=True)
class Taps:
    """Injections prepared for one call of a model; a pytree, so it can pass through remat and scan.

    Attributes:
      active: the injections that act in this call, in the order in which they act at one place.
      num_layers, prefix_tokens: of the model; prefix tokens come before the patch tokens.
      mask, index: passed to the noises.
      passed: the points and layers at which the model has called the taps.
    """

    active: tuple[_Active, ...]
    num_layers: int
    prefix_tokens: int
    mask: jax.Array | None = None
    index: jax.Array | None = None
    passed: _Passed = dataclasses.field(default_factory=_Passed)

    def __call__(self, x: jax.Array, *, point: Point, layer: int = 0) -> jax.Array:
        """Returns x with the noise of every injection that acts at this layer and point.

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
                "int; if layers are scanned over, noise cannot be addressed to one of them"
            )
        self.passed.add((point, layer))

    def require_passed(self, layer: int, *, model: str) -> None:
        """Raises ValueError if noise acts at a layer whose block has not called its tap.

        Afterwards the record is cleared, so each block is checked for its own layer only.

        Args:
          layer: from 1; its block has just been computed.
          model: the name of the model's class, for the error.
        """
        for active in self.active:
            point = active.injection.point
            acts = point != "image" and layer in active.injection.layers(self.num_layers)
            if acts and (point, layer) not in self.passed:
                raise ValueError(
                    f"the block of layer {layer} of {model} has not called taps(x, "
                    f"point={point!r}, layer={layer}), so the noise of "
                    f"{active.injection.section} does not enter: call it in run_block, or remove "
                    f"{point!r} from the model's points"
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
    """Prepares one or several injections for one call of a Linen ``module``.

    An injection is inactive while the module is initialised, and in modes in which it does not
    act. If none is active, the taps add no operation, and the model is bitwise the plain one. Each
    injection draws from a separate key, which depends on its position among all injections, no
    matter whether the others act.

    Args:
      module: the model; its attribute ``points``, if it has one, lists the points it taps.
      injection: one injection, several, or None.
      num_layers, prefix_tokens: of the model.
      train: whether this call is in training mode.
      mask, index: passed to the noises.
      strength: replaces the noise's own strength, unless it is None; with several injections, one
        strength for each.

    Raises:
      ValueError: the model lacks an injection's layer or point, an active noise draws and the call
        has no "noise" key, or the number of strengths is not the number of injections.
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
    """The key of the injection at a position; the first uses the model's key itself."""
    if key is None or position == 0:
        return key
    # Counted down from 2**32, because the first injection folds in layer numbers, from 0 up.
    return jax.random.fold_in(key, np.uint32(2**32 - position))


def _per_injection(strength: Any, count: int) -> tuple[Any, ...]:
    """The strength of each injection."""
    if strength is None:
        return (None,) * count
    if count == 0:
        raise ValueError(
            f"noise_strength={strength!r}, but the model has no injection, so there is no noise: "
            "create it with one, or omit noise_strength"
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
    """The module's "noise" key; unlike ``make_rng``, it never falls back to the "params" key."""
    if not module.has_rng("noise"):
        raise ValueError(
            "this injection is random, but the call has no key for it: "
            "give apply(..., rngs={'noise': jax.random.key(seed)})"
        )
    return module.make_rng("noise")
