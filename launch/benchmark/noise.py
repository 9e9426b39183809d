"""Speed of the linear transform noise alone: python -m launch.benchmark noise [--flags]

Measured: the wall-clock seconds of one call of a compiled function of x, whose shape is (k, *shape)
and whose batch axis is spread over the devices. The alternatives are the structured implementation,
the matmul and, for the optimal Q, the loop of the published code. Each is measured

  forward   from x to X + QX
  backward  for the gradient of sum(w * (X + QX)) with respect to x, given w: only the pullback

and so is a copy of x, which reads and writes each element once: no noise that changes x can be
faster. With --torch, PyTorch's own roll is measured too, forward and on one device: as it is, and
compiled. On a GPU, where starting a program takes longer than the noise of a small batch, a program
applies each up to 32 times in a row.

Printed: how many times as long as a copy the structured implementation takes, and how many times as
long as that the others, in the same round, as median and quartiles.
"""

import dataclasses
import functools
import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import noise, parallel

from ..main import whole_numbers
from . import measuring, report, torch_roll

_K = flags.DEFINE_list("k", ["64", "256"], "Batch sizes: how many rows are mixed.")
_SHAPE = flags.DEFINE_list("shape", ["197", "768"], "Shape of a row: tokens and features.")
_DEVICES = flags.DEFINE_list("devices", ["1", "8"], "How many devices the rows are spread over.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype of x.")
flags.DEFINE_integer("rounds", 11, "How often each alternative is called.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

flags.DEFINE_bool("torch", False, "Whether torch.roll is measured as well.")
_STRENGTH = 0.3  # of the cyclic shift
_IN_A_ROW = 32  # at most, on a GPU
_BYTES_IN_A_ROW = 2**30  # of x, at most, on a GPU
_LOOP_LARGEST = 1024  # k of the loop, at most
_LOOP_SECONDS = 3.0  # after which the loop, which is slow, takes part in no further rounds

Function = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the flags, after they were checked."""

    ks: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    rounds: int
    torch: bool


def main() -> None:
    """Measures, prints and writes."""
    measuring.keep_accelerators_free()
    if flags.FLAGS.torch and importlib.util.find_spec("torch") is None:
        raise ValueError("--torch: PyTorch is not installed (pip install torch)")
    devices = whole_numbers("devices", _DEVICES.value, minimum=1)
    shape = whole_numbers("shape", _SHAPE.value, minimum=1, repeats=True)
    ks = whole_numbers("k", _K.value, minimum=2)
    spec = report.spec_of(Spec, ks=ks, shape=shape)
    report.require_divisible("k", spec.ks, devices)
    report.run("noise", [spec], measure, _print, devices=devices, out=_OUT.value)


@dataclasses.dataclass(frozen=True)
class _Case:
    """What is measured for a k, a quality matrix and a pass.

    Attributes:
      named: these three.
      calls: of each alternative, "copy" among them; timed.
      single: calls that apply each but "copy" once; compared.
      in_a_row: how often a call applies an alternative.
    """

    named: dict[str, Any]
    calls: dict[str, Callable]
    single: dict[str, Callable]
    in_a_row: int


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """A result for each k, quality matrix and pass."""
    with measuring.in_turn():
        cases = _prepare_all(spec, mesh)
    with measuring.alone():
        return [case.named | _time(case, spec) for case in cases]


def _prepare_all(spec: Spec, mesh: Mesh) -> list[_Case]:
    """Compiles the alternatives of all cases."""
    arrays = {k: _draw(k, spec, mesh) for k in spec.ks}
    return [
        _prepare({"k": k, "quality": quality, "pass": direction}, arrays[k], spec, mesh)
        for k, quality, direction in itertools.product(
            spec.ks, ("cyclic_shift", "optimal"), _PASSES
        )
    ]


def _draw(k: int, spec: Spec, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """x and w, spread over the devices."""

    def draw(seed):
        return jax.random.normal(jax.random.key(seed), (k, *spec.shape), spec.dtype)

    draw = jax.jit(draw, out_shardings=parallel.split_batch(mesh))
    return draw(0), draw(1)


def _prepare(
    named: dict[str, Any], arrays: tuple[jax.Array, jax.Array], spec: Spec, mesh: Mesh
) -> _Case:
    """Compiles the alternatives."""
    split = parallel.split_batch(mesh)
    in_a_row = 1
    if jax.default_backend() == "gpu":
        in_a_row = max(1, min(_IN_A_ROW, _BYTES_IN_A_ROW // arrays[0].nbytes))

    def compile_call(function: Callable, times: int) -> Callable:
        function = jax.jit(_repeat(function, times), in_shardings=split, out_shardings=split)
        return functools.partial(function.lower(*arrays).compile(), *arrays)

    derive = _PASSES[named["pass"]]
    functions = {name: derive(f) for name, f in alternatives(named["quality"]).items()}
    if named["k"] > _LOOP_LARGEST:
        functions.pop("loop", None)
    single = {name: compile_call(f, 1) for name, f in functions.items()}
    functions["copy"] = _copy
    calls = {name: compile_call(f, in_a_row) for name, f in functions.items()}
    rolls = named["quality"] == "cyclic_shift" and named["pass"] == "forward" and mesh.size == 1
    for compiled in (False, True)[: 2 if spec.torch and rolls else 0]:
        name = "torch.roll, compiled" if compiled else "torch.roll"
        call = torch_roll.prepare(arrays[0], strength=_STRENGTH, compiled=compiled)
        single[name] = functools.partial(call, 1)
        calls[name] = functools.partial(call, in_a_row)
    return _Case(named, calls, single, in_a_row)


def _time(case: _Case, spec: Spec) -> dict:
    """Compares what the calls return, then times them."""
    tolerance = 1e-4 if spec.dtype == "float32" else 0.06  # of values around 1, the largest near 5
    what = ", ".join(f"{name}={value}" for name, value in case.named.items())
    results = {name: call() for name, call in case.single.items()}
    differences = measuring.require_agreement(what, results, tolerance=tolerance)
    del results
    for call in case.calls.values():
        jax.block_until_ready(call())
    budgets = {"loop": _LOOP_SECONDS}
    times = measuring.interleave(
        case.calls, rounds=spec.rounds, per_call=case.in_a_row, budgets=budgets
    )
    return {
        "alternatives": measuring.compare(times, to="structured"),
        "to_copy": measuring.compare(times, to="copy")["structured"],
        "in_a_row": case.in_a_row,
        "difference": differences,
    }


def _repeat(function: Callable, times: int) -> Callable:
    """The function of (x, w), ``times`` times in a row, each on what the last returned.

    A linear function's pullback is one of w alone, so there w stands for the last result too.
    """

    def repeated(x, w):
        for number in range(times):
            result = function(x, w)
            if number < times - 1:  # so that each is a program's work of its own
                result = jax.lax.optimization_barrier(result)
            x = w = result
        return result

    return repeated


def _copy(x, w):
    return -x  # XLA would leave out a copy that changes nothing


def alternatives(quality: str) -> dict[str, Function]:
    """Implementations of ``X + QX`` for x of shape (k, ...), the structured one first."""
    matrix = noise.Optimal() if quality == "optimal" else noise.CyclicShift(_STRENGTH)
    functions: dict[str, Function] = {
        name: functools.partial(noise.LinearTransform(matrix, implementation=name), None)
        for name in ("structured", "matmul")
    }
    if quality == "optimal":
        functions["loop"] = shift_by_shift
    return functions


def shift_by_shift(x: jax.Array) -> jax.Array:
    """The optimal Q as the published code computes it: the sum of k - 1 shifts by concatenation."""
    k = x.shape[0]

    def add_shifted(_, carry):
        shifted, total = carry
        shifted = jnp.concatenate([shifted[1:], shifted[:1]])
        return shifted, total + shifted

    _, total = jax.lax.fori_loop(0, k - 1, add_shifted, (x, x))
    return (x + total) / (k + 1)


def _forward(function: Function) -> Callable:
    return lambda x, w: function(x)


def _backward(function: Function) -> Callable:
    # The function is linear, so the compiler removes the forward computation.
    return lambda x, w: jax.vjp(function, x)[1](w)[0]


_PASSES = {"forward": _forward, "backward": _backward}


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    devices = results[0]["devices"]
    others = ["matmul", "loop"] + ["torch.roll", "torch.roll, compiled"] * spec.torch
    rows = []
    for result in results:
        alternatives = result["alternatives"]
        row = [str(result["k"]), result["quality"], result["pass"]]
        row += [report.milliseconds(alternatives["structured"]), report.ratio(result["to_copy"])]
        row += [report.ratio(alternatives[n]) if n in alternatives else "" for n in others]
        rows.append(row)
    kind = results[0]["device_kind"]
    title = (
        f"{devices} x {kind}, x (k, {', '.join(map(str, spec.shape))}) {spec.dtype}, "
        f"{spec.rounds} rounds\n"
        "ms: of structured; / copy: its time / that of a copy; others: their time / its time; "
        "median (quartiles)"
    )
    columns = ["k", "Q", "pass", "ms", "/ copy", *others]
    console.print(report.table(title, columns, rows))
    fewest = min(times["rounds"] for result in results for times in result["alternatives"].values())
    if fewest < spec.rounds:
        console.print(
            f"the loop took part for {_LOOP_SECONDS:g} s, in {fewest} or more of the "
            f"{spec.rounds} rounds"
        )
    report.say_agreement(console, "all alternatives", results)
