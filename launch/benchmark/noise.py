"""Speed of the linear transform noise alone: python -m launch.benchmark noise [--flags]

Measured: the wall-clock seconds of one call of a compiled function of x, whose shape is (k, *shape)
and whose batch axis is spread over the devices. The alternatives are the structured implementation,
the matmul and, for the optimal Q, the loop of the published code. Each is measured

  forward   from x to X + QX
  backward  for the gradient of sum(w * (X + QX)) with respect to x, given w: only the pullback

Printed: how many times as long as the structured implementation the others take in the same round,
as median and quartiles.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import noise, parallel

from ..main import whole_numbers
from . import measuring, report

_K = flags.DEFINE_list("k", ["64", "256"], "Batch sizes: how many rows are mixed.")
_SHAPE = flags.DEFINE_list("shape", ["197", "768"], "Shape of a row: tokens and features.")
_DEVICES = flags.DEFINE_list("devices", ["1", "8"], "How many devices the rows are spread over.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype of x.")
flags.DEFINE_integer("rounds", 11, "How often each alternative is called.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

_LOOP_SECONDS = 6.0  # after which the loop, which is slow, takes part in no further rounds

Function = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the flags, after they were checked."""

    ks: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    rounds: int


def main() -> None:
    """Measures, prints and writes."""
    devices = whole_numbers("devices", _DEVICES.value, minimum=1)
    shape = whole_numbers("shape", _SHAPE.value, minimum=1, repeats=True)
    ks = whole_numbers("k", _K.value, minimum=2)
    spec = report.spec_of(Spec, ks=ks, shape=shape)
    report.require_divisible("k", spec.ks, devices)
    report.run("noise", [spec], measure, _print, devices=devices, out=_OUT.value)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """A result for each k, quality matrix and pass."""
    results = []
    for k, quality in itertools.product(spec.ks, ("cyclic_shift", "optimal")):
        for direction, derive in _PASSES.items():
            functions = {name: derive(f) for name, f in alternatives(quality).items()}
            calls = _compile(functions, spec, k, mesh)
            case = {"k": k, "quality": quality, "pass": direction}
            results.append(case | _time(calls, spec, f"k={k}, {quality}, {direction}"))
    return results


def alternatives(quality: str) -> dict[str, Function]:
    """Implementations of ``X + QX`` for x of shape (k, ...), the structured one first."""
    matrix = noise.Optimal() if quality == "optimal" else noise.CyclicShift(0.3)
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


def _compile(functions: dict[str, Callable], spec: Spec, k: int, mesh: Mesh) -> dict[str, Callable]:
    """Compiled calls without arguments, all for the same x and w."""
    split = parallel.split_batch(mesh)

    def draw(seed):
        return jax.random.normal(jax.random.key(seed), (k, *spec.shape), spec.dtype)

    x, w = (jax.jit(draw, out_shardings=split)(seed) for seed in (0, 1))
    calls = {}
    for name, function in functions.items():
        compiled = jax.jit(function, in_shardings=split, out_shardings=split).lower(x, w).compile()
        calls[name] = lambda compiled=compiled: compiled(x, w)
    return calls


def _time(calls: dict[str, Callable], spec: Spec, what: str) -> dict:
    """Compares what the calls return, then times them."""
    tolerance = 1e-4 if spec.dtype == "float32" else 0.06  # of values around 1, the largest near 5
    results = {name: call() for name, call in calls.items()}
    differences = measuring.require_agreement(what, results, tolerance=tolerance)
    del results
    times = measuring.interleave(calls, rounds=spec.rounds, budgets={"loop": _LOOP_SECONDS})
    return {"alternatives": measuring.compare(times, to="structured"), "difference": differences}


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    devices = results[0]["devices"]
    rows = []
    for result in results:
        alternatives = result["alternatives"]
        milliseconds = report.milliseconds(alternatives["structured"])
        ratios = [
            report.ratio(alternatives[name]) if name in alternatives else ""
            for name in ("matmul", "loop")
        ]
        rows.append([str(result["k"]), result["quality"], result["pass"], milliseconds, *ratios])
    kind = results[0]["device_kind"]
    title = (
        f"{devices} x {kind}, x (k, {', '.join(map(str, spec.shape))}) {spec.dtype}, "
        f"{spec.rounds} rounds\n"
        "ms: of structured; matmul, loop: time / time of structured, median (quartiles)"
    )
    columns = ["k", "Q", "pass", "ms", "matmul", "loop"]
    console.print(report.table(title, columns, rows))
    fewest = min(times["rounds"] for result in results for times in result["alternatives"].values())
    if fewest < spec.rounds:
        console.print(
            f"the loop took part for {_LOOP_SECONDS:g} s, in {fewest} or more of the "
            f"{spec.rounds} rounds"
        )
    report.say_agreement(console, "all alternatives", results)
