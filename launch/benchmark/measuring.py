"""Times alternatives against each other, in a new process for each number of devices."""

import dataclasses
import fcntl
import functools
import math
import multiprocessing.connection
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from pnoise_jax import parallel

from .. import huge_pages

# glibc returns large buffers to the system as soon as they are freed, and the page faults of the
# next call's buffers can take eight times as long as the shift of rows that is measured. So a
# measuring process keeps its memory. Programs do not: it doubled the peak of a training run, and
# gained little over huge pages. Other C libraries ignore these variables.
_KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
}

# Operations per second in bfloat16, without sparsity, from NVIDIA's data sheets.
PEAK_RATES = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}

# The variable with the path of a file that benchmarks sharing a GPU lock; see `take_turn`.
TURNS = "PNOISE_BENCHMARK_TURNS"
_turns: TextIO | None = None

_TURNS_AT_LEAST, _TURNS_AT_MOST = 4, 12  # of warm-up
_FEW_FAULTS = 64  # page faults per turn of warm-up; pages have 4 kB or 2 MB

_MARGIN = 0.15  # an exponent may exceed the expected one by this much


@dataclasses.dataclass
class Times:
    """Seconds of each call, in the order of the rounds.

    Attributes:
      wall: wall-clock time.
      cpu: CPU time of all threads of this process; other programs affect it less than `wall`. On an
        accelerator it says little.
    """

    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)


def keep_accelerators_free() -> None:
    """Keeps this process on the CPU, and its child processes from reserving all of a GPU's memory.

    Call it before JAX is used, in a process that leaves measuring to others.
    """
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def share_turns() -> None:
    """Lets this process prepare at the same time as other parts of `pnoise benchmark gpu`.

    Each part holds a shared lock on one file while it prepares; see `take_turn`. Does nothing in
    other processes.
    """
    global _turns
    if path := os.environ.get(TURNS):
        _turns = open(path)  # noqa: SIM115, locked until this process ends
        fcntl.flock(_turns, fcntl.LOCK_SH)


def take_turn() -> None:
    """Waits until no other process prepares or measures.

    From then on, the others wait until this process ends.
    """
    if _turns is not None:
        fcntl.flock(_turns, fcntl.LOCK_EX)  # releases the shared lock before it waits


def in_a_row(times: int) -> int:
    """How many calls to make before waiting for the result: ``times`` on a GPU, otherwise 1.

    On a GPU, a program is launched while others run, as in a training loop.
    """
    return times if jax.default_backend() == "gpu" else 1


def repeat(call: Callable[[], Any], times: int) -> Callable[[], Any]:
    """A function that calls ``call`` this many times and returns the last result."""

    def repeated():
        for _ in range(times):
            result = call()
        return result

    return repeated


def compile_repeated(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, times: int
) -> Callable[[], jax.Array]:
    """A program that applies the function ``times`` times, each time to the previous result."""

    def repeated(x: jax.Array) -> jax.Array:
        for _ in range(times - 1):
            # On a GPU this keeps the calls apart; the compiler for CPUs fuses them anyway.
            x = jax.lax.optimization_barrier(function(x))
        return function(x)

    jitted = jax.jit(repeated, in_shardings=x.sharding, out_shardings=x.sharding)
    return functools.partial(jitted.lower(x).compile(), x)


def warm_up(calls: Mapping[str, Callable[[], Any]]) -> None:
    """Calls all functions in turn, until a turn no longer waits for memory from the kernel.

    XLA allocates the memory of a whole step at once, and touching a page for the first time can
    take milliseconds: the first steps took up to 2.5 times as long on a CPU.
    """
    for turn in range(_TURNS_AT_MOST):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for call in calls.values():
            jax.block_until_ready(call())
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        if turn >= _TURNS_AT_LEAST - 1 and faults < _FEW_FAULTS:
            return


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    per_call: int = 1,
    budgets: Mapping[str, float] | None = None,
) -> dict[str, Times]:
    """Times the calls in turn, A B C, C B A, A B C, ..., so that a drift affects all of them alike.

    Args:
      calls: functions that are compiled and have been called once; they return arrays, and the time
        ends when the arrays are ready.
      rounds: the number of calls of each function.
      per_call: the number of repetitions in a call; times are divided by it.
      budgets: for slow functions, the number of seconds after which they are left out.

    Returns:
      The times of each function in the rounds in which it took part, which are the first ones.
    """
    times = {name: Times() for name in calls}
    budgets = budgets or {}
    take_turn()
    for number in range(rounds):
        names = list(calls)[:: 1 if number % 2 == 0 else -1]
        for name in names:
            if sum(times[name].wall) > budgets.get(name, math.inf):
                continue
            start, cpu_start = time.perf_counter(), time.process_time()
            result = jax.block_until_ready(calls[name]())
            times[name].wall.append((time.perf_counter() - start) / per_call)
            times[name].cpu.append((time.process_time() - cpu_start) / per_call)
            del result  # before the next call allocates memory
    return times


def compare(times: Mapping[str, Times], *, to: str) -> dict[str, dict[str, Any]]:
    """Summarises the times that `interleave` measured.

    Returns:
      For each alternative, the number of "rounds", and the `spread` of the wall-clock "seconds" per
      call. For all but ``to`` also "ratios", its time divided by the time of ``to`` in each round,
      their spread as "ratio", and the spread of the ratios of CPU time as "cpu_ratio".
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
    """The ratio of each round in which both took part."""
    return [a / b if b else math.nan for a, b in zip(taken, reference, strict=False)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, quartiles and extremes."""
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    return dict(zip(names, np.percentile(values, (0, 25, 50, 75, 100)).tolist(), strict=True))


def exponents(sizes: Sequence[float], seconds: Sequence[Sequence[float]]) -> list[float]:
    """The exponent of each round: the slope of log seconds over log size, by least squares.

    Args:
      sizes: at least two sizes.
      seconds: for each size, the seconds of all rounds.
    """
    slopes, _ = np.polyfit(np.log(sizes), np.log(np.array(seconds)), deg=1)
    return slopes.tolist()


def exceeds(exponent: Mapping[str, float], expected: float) -> bool:
    """Whether growth is faster than expected by more than measurement noise explains.

    Args:
      exponent: the spread of the exponents of all rounds.
      expected: the largest expected exponent.
    """
    return exponent["lower_quartile"] > expected + _MARGIN


def require_agreement(what: str, results: Mapping[str, Any], *, tolerance: float) -> dict:
    """The largest difference between each result (a pytree of arrays) and the first one.

    Raises:
      ArithmeticError: a difference is above ``tolerance``, or not a number.
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


def require_same_step(what: str, metrics: Mapping[str, Any], *, dtype: str) -> dict:
    """Applies `require_agreement` to the loss and gradient norm of training steps.

    Both are relative to the first alternative's. Accuracies are left out, as one example changes
    them by more than any tolerance.

    Args:
      what: a name for the error message.
      metrics: the metrics of a step, or of the steps of several runs, by alternative.
      dtype: the dtype of the computation. A GPU multiplies float32 as TF32, which has 10 bits.
    """
    first = next(iter(metrics.values()))
    parts = {
        name: {key: np.array(step[key]) / np.array(first[key]) for key in ("loss", "grad_norm")}
        for name, step in metrics.items()
    }
    rounded = {"float32": 1e-2 if jax.default_backend() == "gpu" else 1e-3, "bfloat16": 5e-2}
    return require_agreement(what, parts, tolerance=rounded[dtype])


@jax.jit
def _largest_difference(a: Any, b: Any) -> jax.Array:
    def largest(a, b):
        return jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max()

    return jnp.stack(jax.tree.leaves(jax.tree.map(largest, a, b))).max()


def measure_on(
    devices: int,
    measure: Callable[[Any, Mesh], list[dict]],
    spec: Any,
    *,
    keep_memory: bool = True,
) -> list[dict]:
    """Calls ``measure(spec, mesh)`` in a new process, on a mesh of ``devices`` devices.

    JAX must know the number of devices before it starts, so each number needs a new process. On a
    CPU the devices are host devices, which share the cores; on accelerators they are real.

    Returns:
      The list of results that ``measure`` returns, with the number of devices and their kind added
      to each. If the machine has fewer devices, one result that says so under "skipped".

    Raises:
      ChildProcessError: the process was killed.
      Exception: any exception that ``measure`` raises.
    """
    if keep_memory:
        os.environ.update({key: os.environ.get(key, value) for key, value in _KEEP_MEMORY.items()})
    if huge_pages.help_here():
        os.environ[huge_pages.VARIABLE] = huge_pages.TUNABLE  # as in programs
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, devices, measure, spec).result()
        except BrokenProcessPool:
            raise ChildProcessError(
                f"--devices={devices}: the measuring process was killed, most likely because "
                "memory ran out; lower the sizes"
            ) from None


def _end_with_parent() -> None:
    """Ends this process when its parent ends, even in the middle of a measurement.

    Otherwise it would keep running, and keep GPU memory, after a signal has ended the benchmark.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "measurements run in a child process"
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _measure(devices: int, measure: Callable, spec: Any) -> list[dict]:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    share_turns()
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
