"""Devices: the mesh, and how arrays are placed on it."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS, FSDP_AXIS, MODEL_AXIS = "data", "fsdp", "model"


def data_mesh() -> Mesh:
    """A mesh of all devices on one axis: batches are split over it, parameters replicated."""
    return make_mesh(jax.devices())


def training_mesh(fsdp: int = 1, tensor_parallel: int = 1) -> Mesh:
    """A mesh of all devices in groups of neighbours that share parameters or matrix products.

    Args:
      fsdp: how many parts parameters are split into; batches are split over these as well.
      tensor_parallel: how many neighbours on a host share the matrix products of the same
        examples.

    Raises:
      ValueError: the devices do not divide into such groups.
    """
    require_mesh(fsdp, tensor_parallel)
    return make_mesh(jax.devices(), fsdp, tensor_parallel)


def make_mesh(devices: Sequence[Any], fsdp: int = 1, tensor_parallel: int = 1) -> Mesh:
    """`training_mesh` of the given devices, which need not be attached.

    Raises:
      ValueError: devices that share products are not on the same host.
    """
    shape, axes = _mesh_shape(len(devices), fsdp, tensor_parallel)
    types = (AxisType.Auto,) * len(axes)
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if tensor_parallel == 1 and len(slices) == 1:
        ordered = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        hosts = [device.process_index for device in ordered.flat]
        if hosts == sorted(hosts):
            return Mesh(ordered, axes, axis_types=types)
    # Host after host, because each host reads one contiguous part of a batch. By the network
    # topology alone, the devices of several hosts alternate on most TPU pods, so the order of the
    # examples, and with it what noise mixes, would depend on the hosts.
    places = np.empty(len(devices), object)
    places[:] = sorted(devices, key=_host_and_number)
    for group in places.reshape(-1, tensor_parallel):
        if len({_host_and_number(device)[:2] for device in group}) > 1:
            sizes = collections.Counter(_host_and_number(device)[:2] for device in devices)
            raise ValueError(
                f"tensor_parallel={tensor_parallel} does not divide the {min(sizes.values())} "
                f"devices of a host, but devices that share products must be on one: choose one of "
                f"{_divisors(math.gcd(*sizes.values()))}"
            )
    return Mesh(places.reshape(shape), axes, axis_types=types)


def _host_and_number(device: Any) -> tuple[int, int, int]:
    return getattr(device, "slice_index", 0), device.process_index, device.id


def _mesh_shape(
    devices: int, fsdp: int, tensor_parallel: int = 1
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The shape and axis names of `training_mesh`; groups of one device get no axis."""
    sizes = {FSDP_AXIS: fsdp, MODEL_AXIS: tensor_parallel}
    sizes = {axis: size for axis, size in sizes.items() if size > 1}
    data = devices // math.prod(sizes.values())
    return (data, *sizes.values()), (DATA_AXIS, *sizes)


def require_mesh(fsdp: int, tensor_parallel: int = 1, devices: int | None = None) -> None:
    """Raises ValueError unless the devices, by default all of JAX's, divide into such groups."""
    devices = jax.device_count() if devices is None else devices
    if devices % tensor_parallel:
        raise ValueError(
            f"tensor_parallel={tensor_parallel} does not divide the {devices} devices: choose one "
            f"of {_divisors(devices)}"
        )
    groups = devices // tensor_parallel
    if groups % fsdp:
        what = "devices" if tensor_parallel == 1 else f"groups of {tensor_parallel} devices"
        raise ValueError(
            f"fsdp={fsdp} does not divide the {groups} {what}: choose one of {_divisors(groups)}"
        )


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)


def is_split(mesh: Mesh) -> bool:
    """Whether parameters are split on this mesh."""
    return mesh.shape.get(FSDP_AXIS, 1) * mesh.shape.get(MODEL_AXIS, 1) > 1


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes over which batches are split: all but that of tensor parallelism."""
    return tuple(axis for axis in mesh.axis_names if axis != MODEL_AXIS)


def batch_parts(mesh: Mesh) -> int:
    """The number of parts into which batches are split."""
    return mesh.size // mesh.shape.get(MODEL_AXIS, 1)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding in which every device has the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """The sharding that splits an array along ``axis``, the batch, over `batch_axes`."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, batch_axes(mesh)))


def random_key(seed: int, mesh: Mesh) -> jax.Array:
    """``jax.random.key(seed)``, replicated on every device of every host."""
    return jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated(mesh))(seed)


def to_devices(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Puts this host's part of a batch on its devices; the result is the global batch."""
    return {
        key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()
    }


def whole_on_host(array: jax.Array) -> np.ndarray:
    """Copies an array to the memory of every host; all of them must call it.

    If an array is split over several hosts, each has only a part of it.
    """
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def require_divisible(
    field: str,
    size: int,
    *,
    by_micro_batches: int = 1,
    tensor_parallel: int = 1,
    devices: int | None = None,
) -> None:
    """Raises ValueError unless ``size`` examples split evenly over micro-batches and devices.

    The ``tensor_parallel`` devices that share matrix products have the same examples.
    """
    devices = jax.device_count() if devices is None else devices
    groups = devices // tensor_parallel
    parts = groups * by_micro_batches
    if size % parts:
        what = "devices" if tensor_parallel == 1 else f"groups of {tensor_parallel} devices"
        micro = f" x accumulate={by_micro_batches}" if by_micro_batches > 1 else ""
        raise ValueError(
            f"{field}={size} is not divisible by {groups} {what}{micro}: "
            f"use a multiple of {parts}, such as {max(parts, round(size / parts) * parts)}"
        )
