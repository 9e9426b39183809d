"""A fresh process for every number of devices, as JAX must know it before it starts."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax
from jax.sharding import AxisType, Mesh
from rich.console import Console

from pnoise_jax import parallel

# glibc hands large buffers back to the system as soon as they are free, and the page faults of the
# next call's buffers then take up to eight times as long as a shift of rows itself. A measuring
# process keeps its memory. Other C libraries do not read these.
_KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
}


def measure_on_each(
    devices: Sequence[int],
    measure: Callable[[Any, Mesh], list[dict]],
    spec: Any,
    console: Console,
    show: Callable[[list[dict]], None],
) -> list[dict]:
    """`measure_on` for each number of devices; returns all results.

    Args:
      devices, measure, spec: as `measure_on` takes them.
      console: where it is said that a number of devices is skipped.
      show: takes the results of one number of devices, where there are any.

    Raises:
      ChildProcessError: the process was killed.
      Exception: what measure raises.
    """
    results = []
    for count in devices:
        found = measure_on(count, measure, spec)
        results += found
        if "skipped" in found[0]:
            console.print(f"--devices={count} skipped: {found[0]['skipped']}", style="yellow")
        else:
            show(found)
    return results


def measure_on(devices: int, measure: Callable[[Any, Mesh], list[dict]], spec: Any) -> list[dict]:
    """``measure(spec, mesh)`` in a fresh process, on a mesh of so many devices.

    On a CPU these are host devices, which share its cores; on accelerators, real ones.

    Returns:
      What measure returns, a list of results, each with the devices and their kind added; or one
      result that says why it was "skipped": there are not so many devices.

    Raises:
      ChildProcessError: the process was killed.
      Exception: what measure raises.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _KEEP_MEMORY.items()})
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, devices, measure, spec).result()
        except BrokenProcessPool:
            raise ChildProcessError(
                f"--devices={devices}: the measuring process was killed, most likely for want of "
                "memory; lower the sizes"
            ) from None


def _measure(devices: int, measure: Callable, spec: Any) -> list[dict]:
    jax.config.update("jax_num_cpu_devices", devices)
    available = jax.devices()
    kind = available[0].device_kind
    where = {"devices": devices, "device_kind": kind, "platform": jax.default_backend()}
    if len(available) < devices:
        return [where | {"skipped": f"this machine has {len(available)} x {kind}"}]
    mesh = jax.make_mesh(
        (devices,), (parallel.DATA_AXIS,), (AxisType.Auto,), devices=available[:devices]
    )
    return [where | result for result in measure(spec, mesh)]
