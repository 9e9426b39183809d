"""Decaying Gaussian noise on gradients (https://arxiv.org/abs/1511.06807)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def add_gradient_noise(
    std: float, decay: float, factor: optax.Schedule | None = None
) -> optax.GradientTransformationExtraArgs:
    """Adds ``N(0, std^2 / (1 + t)^decay)`` to every gradient at step t, counted from 0.

    `optax.add_noise` keeps its key in the optimiser's state, where it is the same for every run of
    a sweep, whatever the seed. Here the step passes a separate key, ``noise_key``, to `update`.

    Args:
      std: the standard deviation at the first step.
      decay: the decay of the variance; the paper's gamma, 0.55 there.
      factor: additional factor of the standard deviation, by step; None is 1.
    """

    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, **others: Any) -> tuple[Any, Any]:
        del params
        noise_key = others["noise_key"]
        scale = std * (1 + state.count.astype(jnp.float32)) ** (-decay / 2)
        if factor is not None:
            scale = scale * factor(state.count)
        noise = optax.tree.random_like(noise_key, updates, jax.random.normal)
        noisy = jax.tree.map(lambda g, e: g + (scale * e).astype(g.dtype), updates, noise)
        return noisy, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init, update)
