"""Attacks: FGSM (https://arxiv.org/abs/1412.6572) and PGD (https://arxiv.org/abs/1706.06083)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pnoise_jax import noise

Loss = Callable[[jax.Array], jax.Array]  # of pixels (batch, height, width, channels); a scalar


@dataclasses.dataclass(frozen=True)
class Attack:
    """Changes each pixel by at most epsilon to increase a loss, in steps along the gradient's sign.

    One step of size epsilon is FGSM; several steps are PGD.

    Attributes:
      epsilon: the largest change of a pixel, on the scale from 0 to 1: in (0, 1].
      steps: number of steps, at least 1.
      step_size: size of a step, on the same scale; None is epsilon for a single step, and
        2.5 epsilon / steps for more, as in the PGD paper's code.
      random_start: whether to start at a random point within epsilon instead of at the image.
    """

    epsilon: float
    steps: int = 1
    step_size: float | None = None
    random_start: bool = False

    def __post_init__(self):
        if not _is_number(self.epsilon) or not 0 < self.epsilon <= 1:
            raise ValueError(
                f"epsilon={self.epsilon!r}: pixels range from 0 to 1, so give a number in (0, 1], "
                "such as 8 / 255"
            )
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps={self.steps!r}: give a whole number of at least 1")
        size = self.step_size
        if size is not None and not (_is_number(size) and 0 < size <= 1):
            raise ValueError(f"step_size={size!r}: give a number in (0, 1], such as 2 / 255")

    def __call__(
        self,
        key: jax.Array | None,
        loss: Loss,
        pixels: jax.Array,
        *,
        strength: jax.Array | float = 1.0,
        index: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the attacked pixels: in [0, 1], within epsilon of the input, with no gradient.

        Args:
          key: the key of the random start; None without one.
          loss: the loss to increase, a scalar function of pixels.
          pixels: (batch, height, width, channels), float, in [0, 1].
          strength: multiplies epsilon and the step size; may be traced.
          index: (batch,) int32, which seeds each example's random start; by default its position
            in the batch.

        Raises:
          ValueError: the start is random but there is no key.
        """
        pixels = lax.stop_gradient(pixels)
        epsilon, size = strength * self.epsilon, strength * self._size()
        low, high = jnp.maximum(pixels - epsilon, 0), jnp.minimum(pixels + epsilon, 1)

        def step(_, moved):
            return jnp.clip(moved + size * jnp.sign(jax.grad(loss)(moved)), low, high)

        start = pixels
        if self.random_start:
            uniform = noise.draw_per_example(jax.random.uniform, key, pixels, index)
            start = jnp.clip(pixels + epsilon * (2 * uniform - 1), low, high)
        moved = step(0, start) if self.steps == 1 else lax.fori_loop(0, self.steps, step, start)
        return lax.stop_gradient(moved)

    def _size(self) -> float:
        if self.step_size is not None:
            return self.step_size
        return self.epsilon if self.steps == 1 else 2.5 * self.epsilon / self.steps


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)
