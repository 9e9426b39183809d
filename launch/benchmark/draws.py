"""Speed of the noises that draw: python -m launch.benchmark draws [--flags]

Measured: the wall-clock seconds of one call of a compiled function: Gaussian noise and
salt-and-pepper on x, whose shape is (k, *shape), and jax.random drawing as many numbers in float32
alone. Each with three of JAX's generators; JAX_DEFAULT_PRNG_IMPL chooses that of programs.

Printed: how many times as long as the draw of its generator each noise takes in the same round, and
how many times as long as that of threefry2x32, JAX's default, the draws take, as median and
quartiles.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import noise

from ..main import whole_numbers
from . import measuring, report

_K = flags.DEFINE_list("k", ["64"], "Batch sizes.")
_SHAPE = flags.DEFINE_list("shape", ["197", "768"], "Shape of an example: tokens and features.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype of x.")
flags.DEFINE_integer("rounds", 11, "How often each alternative is called.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")
_IN_A_ROW = 8  # on a GPU, where starting a program takes as long as a small draw


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the flags, after they were checked."""

    ks: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    rounds: int


def main() -> None:
    """Measures, prints and writes."""
    measuring.keep_accelerators_free()
    shape = whole_numbers("shape", _SHAPE.value, minimum=1, repeats=True)
    spec = report.spec_of(Spec, ks=whole_numbers("k", _K.value, minimum=1), shape=shape)
    report.run("draws", [spec], measure, _print, out=_OUT.value)


NOISES = {
    "gaussian": (noise.Gaussian(), jax.random.normal),
    "salt_and_pepper": (noise.SaltAndPepper(0.1), jax.random.uniform),
}


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """A result for each k and noise."""
    del mesh
    in_a_row = _IN_A_ROW if jax.default_backend() == "gpu" else 1
    with measuring.in_turn():
        cases = [
            ({"k": k, "noise": name}, _compile(name, k, spec, in_a_row))
            for k in spec.ks
            for name in NOISES
        ]
    with measuring.alone():
        return [named | _time(calls, spec, in_a_row) for named, calls in cases]


def _compile(name: str, k: int, spec: Spec, in_a_row: int) -> dict[str, Callable]:
    """Calls of the noise and of the draw, with each generator; each was called once."""
    noisy, draw = NOISES[name]
    x = jax.random.normal(jax.random.key(0), (k, *spec.shape), spec.dtype)

    def drawn(key, x):
        return draw(key, x.shape, jnp.float32)

    calls = {}
    for generator in GENERATORS:
        key = jax.random.key(1, impl=generator)
        for what, function in (("draw", drawn), ("noise", noisy)):
            call = functools.partial(jax.jit(_repeat(function, in_a_row)), key, x)
            jax.block_until_ready(call())
            calls[f"{what}, {generator}"] = call
    return calls


def _time(calls: dict[str, Callable], spec: Spec, in_a_row: int) -> dict:
    times = measuring.interleave(calls, rounds=spec.rounds, per_call=in_a_row)
    to_draw = {
        name: measuring.compare(times, to=f"draw, {name}")[f"noise, {name}"] for name in GENERATORS
    }
    return {
        "alternatives": measuring.compare(times, to=f"draw, {GENERATORS[0]}"),
        "to_draw": to_draw,
        "in_a_row": in_a_row,
    }


def _repeat(function: Callable, times: int) -> Callable:
    """The function of (key, x) with ``times`` keys, one call after another; returns the last."""

    def repeated(key, x):
        for number in range(times):
            result = function(jax.random.fold_in(key, number), x)
            key, x, result = jax.lax.optimization_barrier((key, x, result))
        return result

    return repeated


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    rows = []
    for result in results:
        for generator in GENERATORS:
            alternatives = result["alternatives"]
            drawn = alternatives[f"draw, {generator}"]
            row = [str(result["k"]), result["noise"], generator, report.milliseconds(drawn)]
            row.append(report.ratio(drawn) if "ratio" in drawn else "")
            row.append(report.milliseconds(alternatives[f"noise, {generator}"]))
            rows.append([*row, report.ratio(result["to_draw"][generator])])
    title = (
        f"{results[0]['device_kind']}, x (k, {', '.join(map(str, spec.shape))}) {spec.dtype}, "
        f"{spec.rounds} rounds\n"
        "median (quartiles); / draw: of the same generator"
    )
    columns = ["k", "noise", "generator", "draw, ms", "/ threefry's", "noise, ms", "/ draw"]
    console.print(report.table(title, columns, rows))
