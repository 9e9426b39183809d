"""The device that a model is traced for, which decides how some operations are written."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax

_DEVICE: contextvars.ContextVar[Any] = contextvars.ContextVar("device", default=None)


@contextlib.contextmanager
def compiling_for(device: Any) -> Iterator[None]:
    """Makes models treat this device, which may be absent, as one of this process."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


def device_here() -> Any:
    """The first device of this process; within `compiling_for`, its device."""
    return jax.local_devices()[0] if _DEVICE.get() is None else _DEVICE.get()


def on_cpu() -> bool:
    """Whether that device is a CPU."""
    return device_here().platform == "cpu"


def on_one_device() -> bool:
    """Whether ``jit`` cannot spread an axis over several devices.

    Either the current mesh has one device; or there is no current mesh, there is only one device,
    and no model is being compiled for another.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return _DEVICE.get() is None and jax.device_count() == 1
    return mesh.size == 1
