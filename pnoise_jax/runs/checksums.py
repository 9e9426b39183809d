"""Checksums of arrays, which show whether a restored checkpoint equals the saved one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree with their paths, such as "params/head/bias"."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def kind(leaf: Any) -> list:
    """[dtype, shape] of an array."""
    return [str(leaf.dtype), list(leaf.shape)]


def describe(tree: Any) -> dict[str, list]:
    """{name: [dtype, shape, checksum]} of every array."""
    checksums = jax.device_get(_checksums(jax.tree.leaves(tree)))
    return {
        name: [*kind(leaf), int(checksum)]
        for (name, leaf), checksum in zip(named_leaves(tree), checksums, strict=True)
    }


def describe_array(x: Any) -> list:
    """[dtype, shape, checksum] of one array."""
    return [*kind(x), int(_checksum(_in_halves(x)))]


def _in_halves(x: Any) -> Any:
    """View a NumPy array of 64-bit numbers as 32-bit ones, since JAX might round the former."""
    if isinstance(x, np.ndarray) and x.dtype.itemsize == 8:
        return np.ascontiguousarray(x).reshape(-1).view(np.uint32)
    return x


@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_checksum(leaf) for leaf in leaves]


@jax.jit
def _checksum(x: jax.Array) -> jax.Array:
    """A uint32 hash of the bits of x and their positions; independent of the sharding."""
    width = np.dtype(x.dtype).itemsize
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[width]
    bits = lax.bitcast_convert_type(x, unsigned).reshape(-1).astype(jnp.uint32)
    places = jnp.arange(bits.size, dtype=jnp.uint32)
    return _mix(bits ^ _mix(places)).sum(dtype=jnp.uint32)


def _mix(h: jax.Array) -> jax.Array:
    """MurmurHash3's 32-bit finaliser: every bit of the input changes about half of the output's."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
