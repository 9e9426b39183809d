"""Checks of the settings and inputs of noises; each error says what was expected."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pnoise_jax.noise import enclosing
from pnoise_jax.registry import did_you_mean


def require_batch(x: jax.Array, mask: jax.Array | None) -> None:
    """Raises ValueError unless x is a float array (batch, ...) and mask, if given, is (batch,)."""
    if not hasattr(x, "ndim"):
        raise ValueError(f"x has type {type(x).__name__}; expected a float array (batch, ...)")
    if x.ndim == 0 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"noise needs a float array (batch, ...); got {x.dtype}{list(x.shape)}")
    if mask is None:
        return
    if getattr(mask, "shape", None) != x.shape[:1]:
        got = f"shape {mask.shape}" if hasattr(mask, "shape") else f"type {type(mask).__name__}"
        raise ValueError(f"mask has {got}; expected an array (batch,) = {x.shape[:1]}")
    if mask.dtype != bool:
        raise ValueError(f"mask is {mask.dtype}: give bool, True for real examples")


def require_examples(
    x: jax.Array, examples: int | None, axis_name: str | tuple[str, ...] | None, *, site: str
) -> None:
    """Raises ValueError if the leading axis of a site's array cannot be the examples.

    Args:
      x: the array at the site; each example may have been split into several rows, such as
        windows.
      examples: the number of examples in the whole call; None if unknown.
      axis_name: the mapped axis over which the noise expects them to be spread, or None.
      site: the site's path, for the error.
    """
    if not x.ndim:
        return  # the noise refuses it
    rows = x.shape[0]
    if enclosing.is_inside(enclosing.VMAP):
        where = "inside vmap"
    elif examples and rows * (lax.axis_size(axis_name) if axis_name else 1) % examples:
        where = f"in a call with {examples} examples"
    else:
        return
    raise ValueError(
        f"{site!r} gets {list(x.shape)} {where}, so a noise that mixes examples would mix "
        "something else there (under vmap, a module usually sees one example at a time): choose a "
        "site further out, or, if the leading axis does contain examples, give noise_mask, "
        f"({rows},) bool"
    )


def require_own_draws(site: str, *, lifted: bool) -> None:
    """Raises ValueError where all examples, or all steps of a loop, would draw the same noise.

    Args:
      site: the path of the module that is called there, for the error.
      lifted: see `enclosing.is_inside`.
    """
    if enclosing.is_inside(enclosing.VMAP | enclosing.LOOPS, lifted=lifted):
        raise ValueError(
            f"{site!r} is called inside jax.vmap or a loop such as lax.scan, where each example or "
            "step would draw the same noise: choose a site further out"
            + "; or use nn.vmap or nn.scan, with split_rngs={'noise': True}"
            * (not lifted)
        )


def require_kept_by_gradients(site: str) -> None:
    """Raises ValueError where JAX would trace the derivative later, without the noise.

    Args:
      site: the path of the module that is called there, for the error.
    """
    if enclosing.is_inside(enclosing.CUSTOM_DERIVATIVES):
        raise ValueError(
            f"{site!r} is called inside a function with its own derivative, such as one by "
            "jax.custom_vjp, which jax.jit or another transform traces. The gradient of that "
            "transform's result would lack the noise: choose a site outside that function; or, if "
            "you need the gradient, compute it inside jax.jit"
        )


def require_index(x: jax.Array, index: jax.Array | None) -> None:
    """Raises ValueError unless index, if given, is an array (batch,) of whole numbers."""
    if index is None:
        return
    if getattr(index, "shape", None) != x.shape[:1]:
        got = f"shape {index.shape}" if hasattr(index, "shape") else f"type {type(index).__name__}"
        raise ValueError(f"index has {got}; expected an array (batch,) = {x.shape[:1]}")
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise ValueError(f"index is {index.dtype}: give int32, each example's number")


def require_finite(field: str, value: float) -> None:
    """Raises ValueError unless value is a finite Python or numpy number."""
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise ValueError(f"{field}={value!r}: give a finite number; pass a traced one at call time")


def require_scalar(field: str, value: Any) -> None:
    """Raises ValueError unless an array, which may be traced, is one number."""
    if value.shape != ():
        raise ValueError(
            f"{field} has shape {value.shape}: give one number for all examples; for several, "
            "jax.vmap the call over them"
        )


def require_one_of(field: str, value: object, allowed: tuple) -> None:
    """Raises ValueError unless value is one of the allowed values."""
    if value not in allowed:
        raise ValueError(f"{field}={value!r}: choose one of {', '.join(map(repr, allowed))}")


def is_count(value: object) -> bool:
    """Whether value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return int(value) >= 1


def require_count(field: str, value: object) -> None:
    """Raises ValueError unless value is a whole number of at least 1."""
    if not is_count(value):
        raise ValueError(f"{field}={value!r}: give a whole number of at least 1")


def require_group_size(value: int | None) -> None:
    """Raises ValueError unless value is None or a whole number of at least 1."""
    if value is not None and not is_count(value):
        raise ValueError(f"group_size={value!r}: give a whole number of at least 1, or None")


def require_key(key: jax.Array | None) -> jax.Array:
    """Returns the key; raises ValueError if it is None or is not exactly one key."""
    if key is None:
        raise ValueError("this noise is random: give it a key, jax.random.key(seed)")
    if not hasattr(key, "dtype"):
        raise ValueError(f"key has type {type(key).__name__}; expected jax.random.key(seed)")
    is_raw = not jnp.issubdtype(key.dtype, jax.dtypes.prng_key)  # made by jax.random.PRNGKey
    if key.ndim != is_raw or (is_raw and key.dtype != np.uint32):
        raise ValueError(
            f"key is {key.dtype}{list(key.shape)}: give one key, such as jax.random.key(seed) or "
            "one of jax.random.split(key)"
        )
    return key


def require_key_of_device(key: jax.Array, x: jax.Array) -> None:
    """Raises ValueError if x differs between the devices of shard_map, but the key does not."""
    x_axes, key_axes = (jax.typeof(each).manual_axis_type.varying for each in (x, key))
    if shared := sorted(x_axes - key_axes):
        raise ValueError(
            f"x differs between the devices of the mapped axes {', '.join(shared)}, and the key "
            "does not, so their examples would draw the same noise: give the noise the axis_name "
            "over which the batch is spread, or fold lax.axis_index into the key; if x is in fact "
            f"the same, give lax.pcast(key, {tuple(shared)}, to='varying')"
        )


def require_whole_batch(x: jax.Array) -> None:
    """Raises ValueError inside shard_map, if x is one device's part of what to mix.

    For noises without axis_name and group_size, which mix the whole batch.
    """
    if axes := sorted(jax.typeof(x).manual_axis_type.varying):
        raise ValueError(
            f"x differs between the devices of the mapped axes {', '.join(axes)}, so only the "
            f"{x.shape[0]} examples of each device would be mixed: give the noise the axis_name "
            f"over which the batch is spread; or group_size={x.shape[0]} if that is what you want"
        )


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Builds an error message: what is unknown, similar known names, and all known names."""
    return f"{what}{did_you_mean(name, known)}"
