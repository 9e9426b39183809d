"""Timing of alternatives against each other, and the check that they compute the same."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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
        names = list(calls) if number % 2 == 0 else list(reversed(calls))
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
    """What `interleave` measured, summed up.

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
    """Round by round; of the rounds in which both took part."""
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
    def of(a, b):
        return jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max()

    return jnp.stack(jax.tree.leaves(jax.tree.map(of, a, b))).max()
