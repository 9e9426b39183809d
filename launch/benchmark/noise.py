"""Speed of the linear transform noise alone: pnoise benchmark noise [--flags]

Measured: the wall-clock seconds of one call of a compiled function of x, whose shape is (k, *shape)
and whose batch axis is spread over the devices. The alternatives are the structured implementation,
the matmul and, for the optimal Q, the loop of the published code. Each is measured

  forward   from x to X + QX
  backward  for the gradient of sum(w * (X + QX)) with respect to x, given w: only the pullback

A copy of x is measured as well. It reads and writes each element once, so no noise that changes x
can be faster. With --torch, torch.roll is also measured, forward and on one device, both in eager
mode and compiled. On a GPU, where launching a program takes longer than the noise of a small batch,
a program applies each up to 32 times in a row; a batch that fits in the GPU's cache stays there.

Printed: the time of the structured implementation divided by the time of a copy, and the times of
the others divided by its time, in the same round, as median and quartiles.
"""

import dataclasses
import functools
import importlib.util
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import noise, parallel

from ..main import whole_numbers
from . import measuring, report, torch_roll

_K = flags.DEFINE_list("k", ["64", "256"], "Batch sizes: the numbers of rows that are mixed.")
_SHAPE = flags.DEFINE_list("shape", ["197", "768"], "Shape of a row: tokens and features.")
_DEVICES = flags.DEFINE_list("devices", ["1", "8"], "Numbers of devices that share the rows.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype of x.")
flags.DEFINE_integer("rounds", 11, "Number of calls of each alternative.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

flags.DEFINE_bool("torch", False, "Also measure torch.roll.")
_STRENGTH = 0.3  # of the cyclic shift
_IN_A_ROW = 32  # at most, on a GPU
_BYTES_IN_A_ROW = 2**30  # of x, at most, on a GPU
_LOOP_LARGEST = 1024  # the largest k of the loop
_LOOP_SECONDS = 3.0  # the loop is slow, so it takes part in no further rounds after this time

Function = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    ks: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    rounds: int
    torch: bool


def main() -> None:
    """Measures, and prints and writes the results."""
    measuring.keep_accelerators_free()
    if flags.FLAGS.torch and importlib.util.find_spec("torch") is None:
        raise ValueError("--torch: PyTorch is not installed (pip install torch)")
    devices = whole_numbers("devices", _DEVICES.value, minimum=1)
    shape = whole_numbers("shape", _SHAPE.value, minimum=1, repeats=True)
    ks = whole_numbers("k", _K.value, minimum=2)
    spec = report.spec_of(Spec, ks=ks, shape=shape)
    report.require_divisible("k", spec.ks, devices)
    report.run("noise", [spec], measure, _print, devices=devices, out=_OUT.value)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """A result for each k, quality matrix and pass."""
    results = []
    for k in spec.ks:
        x = _draw(k, spec, mesh)
        for quality, direction in itertools.product(("cyclic_shift", "optimal"), _PASSES):
            functions = {name: _PASSES[direction](f) for name, f in alternatives(quality).items()}
            if k > _LOOP_LARGEST:
                functions.pop("loop", None)
            named = {"k": k, "quality": quality, "pass": direction}
            rolls = quality == "cyclic_shift" and direction == "forward" and mesh.size == 1
            with parallel.lay_out(mesh):
                times = _measure(functions, x, spec, named, rolls=rolls and spec.torch)
            results.append(named | times)
    return results


def _draw(k: int, spec: Spec, mesh: Mesh) -> jax.Array:
    """x, spread over the devices."""
    split = parallel.split_batch(mesh)
    draw = functools.partial(jax.random.normal, shape=(k, *spec.shape), dtype=spec.dtype)
    return jax.jit(draw, out_shardings=split)(jax.random.key(0))


def _measure(
    functions: dict[str, Function], x: jax.Array, spec: Spec, named: dict, *, rolls: bool
) -> dict:
    """Compares the results of the functions, then times them, a copy and perhaps torch.roll."""
    in_a_row = measuring.in_a_row(max(1, min(_IN_A_ROW, _BYTES_IN_A_ROW // x.nbytes)))
    # Each of the loop's k - 1 additions loses digits; in 16 bits the sum exceeds the tolerance.
    exact = {"loop": x.astype(jnp.float32)}
    results = {
        name: measuring.compile_repeated(f, exact.get(name, x), 1)()
        for name, f in functions.items()
    }
    del exact
    calls = {name: measuring.compile_repeated(f, x, in_a_row) for name, f in functions.items()}
    calls["copy"] = measuring.compile_repeated(
        jnp.negative, x, in_a_row
    )  # XLA leaves out an identity
    for compiled in (False, True) if rolls else ():
        name = "torch.roll, compiled" if compiled else "torch.roll"
        roll = torch_roll.prepare(x, strength=_STRENGTH, compiled=compiled)
        results[name] = roll(1)
        calls[name] = functools.partial(roll, in_a_row)
    # Relative to the largest value, which for the optimal Q is far below 1.
    tolerance = 1e-5 if spec.dtype == "float32" else 0.02
    tolerance *= float(jnp.abs(results["structured"]).max())
    what = ", ".join(f"{name}={value}" for name, value in named.items())
    differences = measuring.require_agreement(what, results, tolerance=tolerance)
    del results
    for call in calls.values():
        jax.block_until_ready(call())
    times = measuring.interleave(
        calls, rounds=spec.rounds, per_call=in_a_row, budgets={"loop": _LOOP_SECONDS}
    )
    return {
        "alternatives": measuring.compare(times, to="structured"),
        "to_copy": measuring.compare(times, to="copy")["structured"],
        "in_a_row": in_a_row,
        "difference": differences,
    }


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


def _backward(function: Function) -> Function:
    # The function is linear, so the compiler removes the forward computation.
    return lambda w: jax.vjp(function, w)[1](w)[0]


_PASSES = {"forward": lambda function: function, "backward": _backward}


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
        "ms: structured; / copy: its time / a copy's time; others: their time / its time; median "
        "(quartiles)"
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
