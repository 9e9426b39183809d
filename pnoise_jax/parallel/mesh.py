"""Devices: the mesh, and how arrays are placed on it."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS, FSDP_AXIS = "data", "fsdp"


def data_mesh() -> Mesh:
    """All devices on one axis, over which batches are split and parameters replicated."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), (AxisType.Auto,))


def training_mesh(fsdp: int = 1) -> Mesh:
    """All devices in groups of ``fsdp`` neighbours, over each of which parameters are split.

    Batches are split over all devices, whatever the groups.

    Raises:
      ValueError: the devices do not divide into such groups.
    """
    require_mesh(fsdp)
    shape, axes = mesh_shape(jax.device_count(), fsdp)
    return jax.make_mesh(shape, axes, (AxisType.Auto,) * len(axes))


def mesh_shape(devices: int, fsdp: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The shape of `training_mesh` and the names of its axes; one axis where fsdp is 1."""
    if fsdp == 1:
        return (devices,), (DATA_AXIS,)
    return (devices // fsdp, fsdp), (DATA_AXIS, FSDP_AXIS)


def require_mesh(fsdp: int, devices: int | None = None) -> None:
    """Raises ValueError unless the devices, by default JAX's, divide into groups of ``fsdp``."""
    devices = jax.device_count() if devices is None else devices
    if devices % fsdp:
        groups = ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
        raise ValueError(
            f"fsdp={fsdp} does not divide the {devices} devices: choose one of {groups}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """All devices share the array along ``axis``, the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, mesh.axis_names))


def random_key(seed: int, mesh: Mesh) -> jax.Array:
    """``jax.random.key(seed)``, replicated on every device of every host."""
    return jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated(mesh))(seed)


def to_devices(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Puts this host's part of a batch on its devices; the result is the global batch."""
    return {
        key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()
    }


def whole_on_host(array: jax.Array) -> np.ndarray:
    """An array in the memory of every host; all of them must call it.

    Of an array that is split over several hosts, each holds a part alone.
    """
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def require_divisible(
    field: str, size: int, *, by_micro_batches: int = 1, devices: int | None = None
) -> None:
    """Raises ValueError unless ``size`` examples split evenly over micro-batches and devices."""
    devices = jax.device_count() if devices is None else devices
    parts = devices * by_micro_batches
    if size % parts:
        micro = f" x accumulate={by_micro_batches}" if by_micro_batches > 1 else ""
        raise ValueError(
            f"{field}={size} is not divisible by {devices} devices{micro}: "
            f"use a multiple of {parts}, such as {max(parts, round(size / parts) * parts)}"
        )
