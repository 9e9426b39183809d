"""Devices: the mesh, how arrays lie on it, and the start on several hosts."""

import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def start(*, multi_host: bool = False) -> None:
    """Joins the other hosts, if there are any; call it before anything touches a device.

    The variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name them; or JAX
    finds them by itself, on Cloud TPU pods and under Slurm and Open MPI.

    Args:
      multi_host: there are others, and JAX shall find them.

    Raises:
      ValueError: some of the three variables are missing, or a number is none; or this is one of
        several tasks and nobody said that they belong together.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, index = (os.environ.get(name) for name in names)
    if address is not None:
        try:
            count, index = int(count), int(index)
        except (TypeError, ValueError):
            raise ValueError(
                f"JAX_COORDINATOR_ADDRESS={address!r} with JAX_NUM_PROCESSES={count!r} and "
                f"JAX_PROCESS_ID={index!r}: the number of processes and this one's, from 0, must "
                "be set as well"
            ) from None
        jax.distributed.initialize(address, count, index)
    elif multi_host:
        jax.distributed.initialize()
    else:
        for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
            if os.environ.get(name, "1") != "1":
                raise ValueError(
                    f"{name}={os.environ[name]}: this is one of several tasks; add --multi_host "
                    "so that they train together, or start a single one"
                )


def data_mesh() -> Mesh:
    """All devices in one axis, over which batches are split and parameters repeated."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), (AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """The devices share the array along ``axis``, the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def random_key(seed: int, mesh: Mesh) -> jax.Array:
    """``jax.random.key(seed)``, on every device of every host."""
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
