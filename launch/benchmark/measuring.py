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
# measuring process keeps its memory, which programs do not: it doubled the peak
# of a training run, and gained little beside huge pages. Other C libraries ignore these variables.
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

# Names the file that benchmarks lock which share a GPU; see `take_turn`.
TURNS = "PNOISE_BENCHMARK_TURNS"
_turns: TextIO | None = None

_TURNS_AT_LEAST, _TURNS_AT_MOST = 4, 12  # of warm-up
_FEW_FAULTS = 64  # pages in a turn of warm-up, of 4 kB or 2 MB

_MARGIN = 0.15  # by which an exponent may exceed the expected one


@dataclasses.dataclass
class Times:
    """Seconds of each call, in the order of the rounds.

    Attributes:
      wall: by the clock.
      cpu: of all threads of this process; other programs affect it less than `wall`. On an
        accelerator it says little.
    """

    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)


def keep_accelerators_free() -> None:
    """Keeps this process on the CPU, and those that it starts from taking all of a GPU's memory.

    To be called before JAX is used, by a process that leaves measuring to others.
    """
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def share_turns() -> None:
    """Lets this process prepare beside the others of `pnoise benchmark gpu`, if it is one.

    Each has a shared lock of one file while it prepares; see `take_turn`.
    """
    global _turns
    if path := os.environ.get(TURNS):
        _turns = open(path)  # noqa: SIM115, locked until this process ends
        fcntl.flock(_turns, fcntl.LOCK_SH)


def take_turn() -> None:
    """Waits until no other process prepares or measures.

    From then on the others wait until this one ends.
    """
    if _turns is not None:
        fcntl.flock(_turns, fcntl.LOCK_EX)  # gives the shared lock back before it waits


def in_a_row(times: int) -> int:
    """How often to do something before its end is awaited: once, on a GPU ``times``.

    On a GPU a program is started while others run, as in a training loop.
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
    """A program that applies the function ``times`` times, each to what it returned before."""

    def repeated(x: jax.Array) -> jax.Array:
        for _ in range(times - 1):
            # On a GPU this keeps each apart; a CPU's compiler would fuse them.
            x = jax.lax.optimization_barrier(function(x))
        return function(x)

    jitted = jax.jit(repeated, in_shardings=x.sharding, out_shardings=x.sharding)
    return functools.partial(jitted.lower(x).compile(), x)


def warm_up(calls: Mapping[str, Callable[[], Any]]) -> None:
    """Calls all in turn, until a turn no longer waits for memory that the kernel hands out.

    XLA asks for the memory of a whole step at once, and a page that is touched for the first time
    can take milliseconds: the first steps took up to 2.5 times as long on a CPU.
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
      calls: compiled and called once before; they return arrays, and the time ends when these are
        ready.
      rounds: how often each is called.
      per_call: how many repetitions a call makes; times are those of one.
      budgets: for slow calls, the number of seconds after which they are left out.

    Returns:
      The times of each call in the rounds in which it took part: the first ones.
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
            del result  # before the next call asks for memory
    return times


def compare(times: Mapping[str, Times], *, to: str) -> dict[str, dict[str, Any]]:
    """Sums up what `interleave` measured.

    Returns:
      For each alternative the number of "rounds" and the "seconds" per call by the clock, as
      `spread` gives them. For all but ``to`` also "ratios", its time divided by that of ``to`` in
      each round, their spread as "ratio", and the spread of the ratios of CPU time as "cpu_ratio".
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
    """Median, quartiles and extremes."""
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    return dict(zip(names, np.percentile(values, (0, 25, 50, 75, 100)).tolist(), strict=True))


def exponents(sizes: Sequence[float], seconds: Sequence[Sequence[float]]) -> list[float]:
    """The exponent of each round: the slope of log seconds over log size, by least squares.

    Args:
      sizes: two at least.
      seconds: for each size, those of all rounds.
    """
    slopes, _ = np.polyfit(np.log(sizes), np.log(np.array(seconds)), deg=1)
    return slopes.tolist()


def exceeds(exponent: Mapping[str, float], expected: float) -> bool:
    """Whether more than the noise of the measurement speaks for a faster growth than expected.

    Args:
      exponent: the spread of the exponents of all rounds.
      expected: what is expected at most.
    """
    return exponent["lower_quartile"] > expected + _MARGIN


def require_agreement(what: str, results: Mapping[str, Any], *, tolerance: float) -> dict:
    """The largest difference between each result (a pytree of arrays) and the first one.

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


def require_same_step(what: str, metrics: Mapping[str, Any], *, dtype: str) -> dict:
    """`require_agreement` of what steps of training return: loss and gradient norm.

    Each as a part of the first one's. Accuracies are left out, as one example changes them by more
    than any tolerance.

    Args:
      what: named in the error.
      metrics: of a step, or of steps together, by alternative.
      dtype: of the computation. A GPU multiplies float32 as TF32, which has 10 bits.
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
    """``measure(spec, mesh)`` in a new process, on a mesh of ``devices`` devices.

    JAX must know the number of devices before it starts, so each number needs its own process. On a
    CPU the devices are host devices, which share the cores; on accelerators they are real.

    Returns:
      The list of results that ``measure`` returns, with the number of devices and their kind added
      to each. If the machine has fewer devices, one result that says so under "skipped".

    Raises:
      ChildProcessError: the process was killed.
      Exception: what measure raises.
    """
    if keep_memory:
        os.environ.update({key: os.environ.get(key, value) for key, value in _KEEP_MEMORY.items()})
    if huge_pages.help_here():
        os.environ[huge_pages.VARIABLE] = huge_pages.TUNABLE  # as programs have them
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
    """Ends this process, in the middle of a measurement too, when the one that waits for it does.

    Otherwise it would go on, with the memory of a GPU, after a signal had ended the benchmark.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "measurements have processes of their own"
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
