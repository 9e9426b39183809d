"""SSRT's safe training: a ramp that restarts from a snapshot when predictions collapse."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

State = dict[str, jax.Array]
LARGEST_FALL = 1.0  # of the mean number of predicted classes between two parts
_ROUNDING = 1e-4  # more than that of a mean, less than two different means are apart
SMALLEST_RAMP = 0.1  # the perturbation cannot cause a fall while the ramp is below this


@dataclasses.dataclass(frozen=True)
class SafeTraining:
    """How SSRT (https://arxiv.org/abs/2204.07683, section 3.4) keeps a model from collapsing.

    The diversity of a step is the number of classes predicted in its target batch. After every
    period, its diversities are split into 1, 2, 4, ... parts. If the mean of any part is more than
    1 below the mean of the part before it, the weights from the start of the period are restored
    and the ramp starts again, twice as long if the last restart was recent.

    All methods are pure functions of arrays and can be traced.

    Attributes:
      period: number of steps between checks.
      scales: the finest split has 2^scales parts.
    """

    period: int
    scales: int

    def __post_init__(self) -> None:
        for name in ("period", "scales"):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a whole number")
        if self.scales < 0 or self.period < 2**self.scales:
            raise ValueError(
                f"scales={self.scales} splits a period of {self.period} steps into "
                f"2^{self.scales} parts: give scales of at least 0 and a period with at least "
                "one step in each part"
            )

    def init(self, num_classes: int) -> State:
        """Returns the state before the first step."""
        return {
            "seen": jnp.zeros(num_classes, bool),  # classes predicted in this step
            "diversities": jnp.zeros(self.period, jnp.int32),
            "last_means": jnp.full(self.scales + 1, -jnp.inf, jnp.float32),  # previous period's
            "ramp_start": jnp.zeros((), jnp.int32),
            "ramp_length": jnp.full((), self.period, jnp.int32),
            "last_restore": jnp.zeros((), jnp.int32),
            "restores": jnp.zeros((), jnp.int32),
        }

    def ramp(self, state: State, step: jax.Array) -> jax.Array:
        """Returns sin(pi/2 (step - start) / length), a scalar; 1 after the end of the ramp."""
        elapsed = (step - state["ramp_start"]).astype(jnp.float32)
        done = elapsed / state["ramp_length"].astype(jnp.float32)
        return jnp.sin(jnp.pi / 2 * jnp.minimum(done, 1.0))

    def note(self, state: State, logits: jax.Array) -> tuple[State, jax.Array]:
        """Returns the state updated by target logits (batch, classes), and their diversity."""
        predicted = jnp.zeros_like(state["seen"]).at[logits.argmax(-1)].set(True)
        return state | {"seen": state["seen"] | predicted}, predicted.sum(dtype=jnp.int32)

    def end_step(
        self, state: State, current: Any, snapshot: Any, *, step: jax.Array
    ) -> tuple[State, Any, Any]:
        """Ends a step, and also the period if this is its last step.

        Args:
          state: the state after `note`.
          current: the weights, a tree of arrays; None to restart only the ramp.
          snapshot: the weights at the start of the period, or None.
          step: the number of the step, from 0.

        Returns:
          The state, the weights and the snapshot after the step.
        """
        diversity = state["seen"].sum(dtype=jnp.int32)
        state = state | {
            "seen": jnp.zeros_like(state["seen"]),
            "diversities": state["diversities"].at[step % self.period].set(diversity),
        }

        def end_period(state, current, snapshot):
            state, fell = self._end_period(state, step)
            current = jax.tree.map(lambda old, new: jnp.where(fell, old, new), snapshot, current)
            return state, current, current

        def same(*operands):
            return operands

        is_last = (step + 1) % self.period == 0
        return jax.lax.cond(is_last, end_period, same, state, current, snapshot)

    def _end_period(self, state: State, step: jax.Array) -> tuple[State, jax.Array]:
        """Returns the state for the next period, and whether to restore the snapshot."""
        fell, means = self._compare(state["diversities"], state["last_means"])
        fell &= self.ramp(state, step) > SMALLEST_RAMP
        now, length = step + 1, state["ramp_length"]
        soon = now - state["last_restore"] <= length
        after = {
            "last_means": state["last_means"],  # an undone period is compared with nothing
            "ramp_start": now,
            "ramp_length": jnp.where(soon, 2 * length, length),
            "last_restore": now,
            "restores": state["restores"] + 1,
        }
        otherwise = {**{name: state[name] for name in after}, "last_means": means}
        return state | jax.tree.map(lambda a, b: jnp.where(fell, a, b), after, otherwise), fell

    def _compare(self, diversities: jax.Array, before: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns whether the mean of any part fell, and the last part's mean at each scale."""
        fell, last_means = jnp.zeros((), bool), []
        for scale in range(self.scales + 1):
            parts = jnp.array_split(diversities, 2**scale)
            means = jnp.stack([part.astype(jnp.float32).mean() for part in parts])
            previous = jnp.concatenate([before[scale : scale + 1], means[:-1]])
            fell |= (means < previous - LARGEST_FALL - _ROUNDING).any()
            last_means.append(means[-1])
        return fell, jnp.stack(last_means)
