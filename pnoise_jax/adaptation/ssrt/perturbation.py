"""SSRT's perturbation: copies of a batch that start at a layer drawn at run time."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from pnoise_jax import noise
from pnoise_jax.training import State

IMAGE = 0  # the place before the first layer


def perturb(x: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Mixes x (batch, ...) with the batch in reverse order, as the noise `Reverse` does.

    Args:
      x: a representation, or images.
      strength: the share of the other example; may be traced.

    Returns:
      ``x + stop_gradient(strength * (x[::-1] - x))``: no gradient flows through the added term.
    """
    noisy = noise.LinearTransform(noise.Reverse(1.0))(None, x, strength=strength)
    return x + jax.lax.stop_gradient(noisy - x)


def with_perturbed(
    run: Callable[..., tuple[jax.Array, State]],
    state: State,
    images: jax.Array,
    *,
    places: Sequence[int],
    drawn: jax.Array,
    strength: jax.Array,
) -> tuple[jax.Array, jax.Array, State]:
    """Returns the features of images and of copies that are perturbed at the drawn place.

    The model is traced twice, once per stream, for any number of places. The stream of the copies
    skips the layers before the place where the copies start. (One branch per place would trace the
    model once per branch, and reserve memory for the activations of every branch.)

    Args:
      run: ``run(state, x, start=, end=, domain=)`` runs a range of the model's layers, for the
        domain "target" or "perturbed", and returns the output and the state.
      state: the collections.
      images: normalised images, (batch, height, width, channels).
      places: where copies can start, in order: `IMAGE` or layer numbers.
      drawn: the drawn place, an int32 scalar.
      strength: strength of the perturbation.

    Returns:
      The features of the images and of the copies, (batch, dim) each, and the state.
    """
    x, copy = images, None
    if places[0] != IMAGE:
        x, state = run(state, x, start=IMAGE, end=places[0], domain="target")
    for place, end in zip(places, (*places[1:], "features"), strict=True):
        started = perturb(x, strength)
        copy = started if copy is None else jnp.where(drawn == place, started, copy)
        x, state = run(state, x, start=place, end=end, domain="target")
        if place == places[-1]:
            copy, state = run(state, copy, start=place, end=end, domain="perturbed")
        else:
            copy, state = _run_if(drawn <= place, run, state, copy, start=place, end=end, like=x)
    assert copy is not None, "there is at least one place"
    return x, copy, state


def _run_if(
    condition: jax.Array,
    run: Callable[..., tuple[jax.Array, State]],
    state: State,
    x: jax.Array,
    *,
    start: int,
    end: int | Literal["features"],
    like: jax.Array,
) -> tuple[jax.Array, State]:
    """Runs the copies if the condition holds; if not, returns zeros like `like` and the state."""

    def run_copies(batch_stats, x):
        before = {**state, "batch_stats": batch_stats}
        x, after = run(before, x, start=start, end=end, domain="perturbed")
        return x, after["batch_stats"]

    def skip(batch_stats, x):
        del x
        return jnp.zeros_like(like), batch_stats

    x, batch_stats = jax.lax.cond(condition, run_copies, skip, state["batch_stats"], x)
    return x, {**state, "batch_stats": batch_stats}
