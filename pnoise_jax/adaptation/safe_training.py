"""SSRT's safe training: a ramp that restarts from a snapshot when predictions collapse."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

State = dict[str, jax.Array]
LARGEST_FALL = 1.0  # of the mean number of predicted classes, from one part of a period to the next
SMALLEST_RAMP = 0.1  # under a smaller ramp, the perturbation did not cause the fall


@dataclasses.dataclass(frozen=True)
class SafeTraining:
    """How SSRT (https://arxiv.org/abs/2204.07683, section 3.4) keeps a model from collapsing.

    The diversity of a step is the number of classes predicted in its target batch. After every
    period, that period's diversities are split into 1, 2, 4, ... parts. If the mean of any part is
    more than 1 below that of the part before, the weights go back to those at the start of the
    period and the ramp starts again, twice as slowly if the last restart was recent.

    All methods are pure functions of arrays, and can be traced.

    Attributes:
      period: steps from one check to the next.
      scales: the finest split is into 2^scales parts.
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
                f"2^{self.scales} parts: give scales of at least 0 and a period of at least as "
                "many steps as it has parts"
            )

    def init(self, num_classes: int) -> State:
        """The state before the first step."""
        return {
            "seen": jnp.zeros(num_classes, bool),  # classes predicted in this step
            "diversities": jnp.zeros(self.period, jnp.int32),
            "last_means": jnp.full(self.scales + 1, -jnp.inf, jnp.float32),  # of the period before
            "ramp_start": jnp.zeros((), jnp.int32),
            "ramp_length": jnp.full((), self.period, jnp.int32),
            "last_restore": jnp.zeros((), jnp.int32),
            "restores": jnp.zeros((), jnp.int32),
        }

    def ramp(self, state: State, step: jax.Array) -> jax.Array:
        """sin(pi/2 (step - start) / length), a scalar; 1 after the end of the ramp."""
        elapsed = (step - state["ramp_start"]).astype(jnp.float32)
        done = elapsed / state["ramp_length"].astype(jnp.float32)
        return jnp.sin(jnp.pi / 2 * jnp.minimum(done, 1.0))

    def note(self, state: State, logits: jax.Array) -> tuple[State, jax.Array]:
        """The state after a micro-batch's target logits (batch, classes), and its diversity."""
        predicted = jnp.zeros_like(state["seen"]).at[logits.argmax(-1)].set(True)
        return state | {"seen": state["seen"] | predicted}, predicted.sum(dtype=jnp.int32)

    def end_step(
        self, state: State, current: Any, snapshot: Any, *, step: jax.Array
    ) -> tuple[State, Any, Any]:
        """Ends a step, and the period if it is the period's last step.

        Args:
          state: after `note`.
          current: the weights, a tree of arrays; or None, to restart only the ramp.
          snapshot: the weights at the start of the period, or None.
          step: its number, from 0.

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
        """The state for the next period, and whether to restore the snapshot."""
        fell, means = self._compare(state["diversities"], state["last_means"])
        fell &= self.ramp(state, step) > SMALLEST_RAMP
        now, length = step + 1, state["ramp_length"]
        soon = now - state["last_restore"] <= length
        after = {
            "last_means": state["last_means"],  # nothing is compared with an undone period
            "ramp_start": now,
            "ramp_length": jnp.where(soon, 2 * length, length),
            "last_restore": now,
            "restores": state["restores"] + 1,
        }
        otherwise = {**{name: state[name] for name in after}, "last_means": means}
        return state | jax.tree.map(lambda a, b: jnp.where(fell, a, b), after, otherwise), fell

    def _compare(self, diversities: jax.Array, before: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Whether a part's mean fell, and for each scale the last part's mean."""
        fell, last_means = jnp.zeros((), bool), []
        for scale in range(self.scales + 1):
            parts = jnp.array_split(diversities, 2**scale)
            means = jnp.stack([part.astype(jnp.float32).mean() for part in parts])
            previous = jnp.concatenate([before[scale : scale + 1], means[:-1]])
            fell |= (means < previous - LARGEST_FALL).any()
            last_means.append(means[-1])
        return fell, jnp.stack(last_means)
