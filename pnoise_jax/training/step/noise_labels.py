"""Mixes labels as the noise mixes the examples: mixup with the noise's matrix."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import noise

FIELD = "mixup.labels_follow_noise"


def strengths_of(
    injections: Sequence[noise.Injection], noise_strength: Any
) -> tuple[jax.Array | float, ...]:
    """The strength of each injection in a step: its own, or the one passed to the step.

    Args:
      injections: the model's injections.
      noise_strength: None, a scalar for a single injection, or one number for each.
    """
    if noise_strength is None:
        return tuple(each.noise.strength for each in injections)
    if isinstance(noise_strength, tuple | list):
        return tuple(noise_strength)
    return tuple(jnp.atleast_1d(noise_strength)[n] for n in range(len(injections)))


def mix_targets(
    injections: Sequence[noise.Injection],
    targets: jax.Array,
    *,
    strengths: Sequence[jax.Array | float],
    num_layers: int,
) -> jax.Array:
    """Mixes targets by the matrices ``I + Q`` that mix the examples, in the order of the layers.

    The noise is applied to the targets, so that groups, sharding and a traced strength have the
    same effect on both. Each row is divided by the sum of its weights, so that it remains a
    distribution even if the matrix's rows do not sum to 1.

    Args:
      injections: the model's injections, checked by `require_mixing`; those that are off in
        training are ignored.
      targets: (batch, classes), each row a distribution.
      strengths: the strength of each injection.
      num_layers: the number of layers of the model.

    Returns:
      The mixed targets, (batch, classes).
    """
    acting = [
        (layer, each, strength)
        for each, strength in zip(injections, strengths, strict=True)
        if each.train
        for layer in _places(each, num_layers)
    ]
    for _, each, strength in sorted(acting, key=lambda place: place[0]):
        targets = each.noise(None, targets, strength=strength)
    return targets / targets.sum(-1, keepdims=True)


def _places(injection: noise.Injection, num_layers: int) -> tuple[int, ...]:
    """The layers at which an injection mixes in one call; a random layer counts as one layer."""
    if injection.point == "image" or injection.draws_layer:
        return (injection.first_layer(num_layers),)
    return injection.layers(num_layers)


def require_mixing(injections: Sequence[noise.Injection]) -> None:
    """Raises ValueError unless all noise in training mixes whole examples by known weights."""
    acting = [each for each in injections if each.train]
    if not acting:
        raise ValueError(
            f"{FIELD}=True, but no noise acts in training, so the labels have nothing to follow; "
            f"set noise.train=True, or {FIELD}=False"
        )
    for each in acting:
        why = _why_undefined(each)
        if why is not None:
            raise ValueError(f"{FIELD}=True: {why}; or set {FIELD}=False")
    if len(acting) > 1 and any(each.draws_layer for each in acting):
        raise ValueError(
            f"{FIELD}=True: one of several noises (mixup at a layer counts) has layer='random', so "
            "their order differs from step to step, and so may the labels' weights; name the "
            f"layer, or set {FIELD}=False"
        )


def _why_undefined(injection: noise.Injection) -> str | None:
    """Why the share of each label is unknown, and the fix; None if it is known."""
    section, kind = injection.section, injection.noise
    if not isinstance(kind, noise.LinearTransform):
        return (
            f"{section} is {type(kind).__name__}, which has no matrix that mixes examples, so no "
            f"label has a share; set {section}.name='linear_transform'"
        )
    if kind.axis != "batch":
        return (
            f"{section}.axis={kind.axis!r} mixes within one image, whose label stays the same; set "
            f"{section}.axis='batch'"
        )
    if injection.point == "attention_input":
        return (
            f"{section}.point='attention_input' mixes one branch, but the residual keeps the "
            f"example unchanged, so its share is unknown; set {section}.point='block_input'"
        )
    if injection.tokens == "patch" and injection.point != "image":
        return (
            f"{section}.tokens='patch' leaves a class token unchanged, so an example's share is "
            f"unknown; set {section}.tokens='all', which is the same for models without one"
        )
    if not isinstance(kind.quality, noise.CyclicShift | noise.Reverse | noise.Optimal):
        weights = _weights(kind)
        if weights is None:
            return (
                f"{section}.quality={kind.quality!r}: it is unknown how many examples it mixes, so "
                f"its weights cannot be checked; set {section}.group_size"
            )
        if weights.min() < -1e-6 or weights.sum(axis=1).min() <= 1e-6:
            return (
                f"{section}: I + Q has negative weights or an empty row, so it cannot mix labels; "
                "use a Q for which I + Q has no entry below 0"
            )
    elif not 0 <= kind.strength <= 1:
        return (
            f"{section}.strength={kind.strength!r} gives an example or its partner a negative "
            f"weight, which cannot mix labels; set {section}.strength to a number from 0 to 1"
        )
    return None


def _weights(kind: noise.LinearTransform) -> np.ndarray | None:
    """The matrix I + Q; None if its size is unknown."""
    if isinstance(kind.quality, noise.Dense):
        values = kind.quality.values
        return np.eye(len(values)) + kind.strength * values
    size = kind.group_size
    return None if size is None else np.eye(size) + np.asarray(kind.quality.matrix(size))
