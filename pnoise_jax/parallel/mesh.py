"""Devices: the mesh, and how arrays are placed on it."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def data_mesh() -> Mesh:
    """All devices on one axis, over which batches are split and parameters replicated."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), (AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """The devices share the array along ``axis``, the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def random_key(seed: int, mesh: Mesh) -> jax.Array:
    """``jax.random.key(seed)``, replicated on every device of every host."""
    return jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated(mesh))(seed)


def to_devices(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Puts this host's part of a batch on its devices; the result is the global batch."""
    return {
        key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()
    }


def require_divisible(field: str, size: int, *, by_micro_batches: int = 1) -> None:
    """Raises ValueError unless ``size`` examples split evenly over micro-batches and devices."""
    devices = jax.device_count()
    parts = devices * by_micro_batches
    if size % parts:
        micro = f" x accumulate={by_micro_batches}" if by_micro_batches > 1 else ""
        raise ValueError(
            f"{field}={size} is not divisible by {devices} devices{micro}: "
            f"use a multiple of {parts}, such as {max(parts, round(size / parts) * parts)}"
        )
