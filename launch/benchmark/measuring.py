"""Timing of alternatives against each other, each number of devices in a process of its own."""

import dataclasses
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from pnoise_jax import parallel

# glibc hands large buffers back to the system as soon as they are free, and the page faults of the
# next call's buffers then take up to eight times as long as a shift of rows itself. A measuring
# process keeps its memory. Other C libraries do not read these.
_KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
}


@dataclasses.dataclass
class Times:
    """Seconds of each call, in the order of the rounds.

    Attributes:
      wall: by the clock.
      cpu: of all this process's threads on all cores, whatever other programs do meanwhile; on an
        accelerator it says little.
    """

    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    budgets: Mapping[str, float] | None = None,
) -> dict[str, Times]:
    """Times the calls in turn, A B C, C B A, A B C, ...: a drift hits all of them alike.

    Args:
      calls: already compiled and warm; each returns arrays, which are waited for.
      rounds: how often each is called.
      budgets: of some calls, the seconds after which they take part in no further rounds.

    Returns:
      The times of each, one for each round it took part in, from the first round on.
    """
    times = {name: Times() for name in calls}
    budgets = budgets or {}
    for number in range(rounds):
        names = list(calls)[:: 1 if number % 2 == 0 else -1]
        for name in names:
            if sum(times[name].wall) > budgets.get(name, math.inf):
                continue
            start, cpu_start = time.perf_counter(), time.process_time()
            result = jax.block_until_ready(calls[name]())
            times[name].wall.append(time.perf_counter() - start)
            times[name].cpu.append(time.process_time() - cpu_start)
            del result  # before the next call asks for memory
    return times


def compare(times: Mapping[str, Times], *, to: str) -> dict[str, dict[str, Any]]:
    """Sums up what `interleave` measured.

    Returns:
      For each alternative the number of "rounds", "seconds" per call by the clock (see `spread`),
      and against ``to`` the "ratios" round by round, its time / the time of ``to``, their spread,
      "ratio", and "cpu_ratio", the spread of the ratios of CPU time.
    """
    compared = {}
    for name, taken in times.items():
        compared[name] = {"rounds": len(taken.wall), "seconds": spread(taken.wall)}
        if name != to:
            ratios = _ratios(taken.wall, times[to].wall)
            cpu_ratio = spread(_ratios(taken.cpu, times[to].cpu))
            compared[name] |= {"ratio": spread(ratios), "cpu_ratio": cpu_ratio, "ratios": ratios}
    return compared


def _ratios(taken: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Round by round, for the rounds in which both took part."""
    return [a / b if b else math.nan for a, b in zip(taken, reference, strict=False)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    return dict(zip(names, np.percentile(values, (0, 25, 50, 75, 100)).tolist(), strict=True))


def require_agreement(what: str, results: Mapping[str, Any], *, tolerance: float) -> dict:
    """The largest difference of each result (a pytree of arrays) from the first one.

    Raises:
      ArithmeticError: one is above ``tolerance``, or not a number.
    """
    first, *others = results
    differences = {}
    for name in others:
        differences[name] = difference = float(_largest_difference(results[first], results[name]))
        if not difference <= tolerance:
            raise ArithmeticError(
                f"{what}: {name} differs from {first} by {difference:.3g}, more than "
                f"{tolerance:g}; they must compute the same, so nothing was timed"
            )
    return differences


@jax.jit
def _largest_difference(a: Any, b: Any) -> jax.Array:
    def largest(a, b):
        return jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max()

    return jnp.stack(jax.tree.leaves(jax.tree.map(largest, a, b))).max()


def measure_on(devices: int, measure: Callable[[Any, Mesh], list[dict]], spec: Any) -> list[dict]:
    """``measure(spec, mesh)`` in a fresh process, on a mesh of ``devices`` devices.

    JAX has to know the number of devices before it starts, so each needs a process. On a CPU these
    are host devices, which share its cores; on accelerators, real ones.

    Returns:
      What measure returns, a list of results, each with the devices and their kind added; or one
      result that says why it was "skipped": the machine has fewer devices.

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
                f"--devices={devices}: the measuring process was killed, most likely because "
                "memory ran out; lower the sizes"
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
