"""Speed of the noises that draw random numbers: pnoise benchmark draws [--flags]

Measured: the wall-clock seconds of one call of a compiled function: Gaussian noise and
salt-and-pepper on x, whose shape is (k, *shape), and jax.random drawing the same number of float32
values alone. Each is measured with three of JAX's generators; in programs, JAX_DEFAULT_PRNG_IMPL
chooses the generator.

Printed: each noise's time divided by the time of its generator's draw in the same round, and each
draw's time divided by the time of a draw from threefry2x32, JAX's default, as median and quartiles.
"""

import dataclasses
import functools

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
flags.DEFINE_integer("rounds", 11, "Number of calls of each alternative.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")
_IN_A_ROW = 8  # on a GPU, where launching a program takes as long as a small draw


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    ks: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    rounds: int


def main() -> None:
    """Measures, and prints and writes the results."""
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
    return [{"k": k, "noise": name} | _measure(name, k, spec) for k in spec.ks for name in NOISES]


def _measure(name: str, k: int, spec: Spec) -> dict:
    """Times the noise and the draw with each generator."""
    noisy, draw = NOISES[name]
    x = jax.random.normal(jax.random.key(0), (k, *spec.shape), spec.dtype)
    drawn = functools.partial(draw, shape=x.shape, dtype=jnp.float32)
    in_a_row = measuring.in_a_row(_IN_A_ROW)
    calls = {}
    for generator in GENERATORS:
        key = jax.random.key(1, impl=generator)
        for what, function, arguments in (("draw", drawn, (key,)), ("noise", noisy, (key, x))):
            compiled = jax.jit(function).lower(*arguments).compile()
            call = measuring.repeat(functools.partial(compiled, *arguments), in_a_row)
            jax.block_until_ready(call())
            calls[f"{what}, {generator}"] = call
    times = measuring.interleave(calls, rounds=spec.rounds, per_call=in_a_row)
    to_draw = {
        name: measuring.compare(times, to=f"draw, {name}")[f"noise, {name}"] for name in GENERATORS
    }
    return {
        "alternatives": measuring.compare(times, to=f"draw, {GENERATORS[0]}"),
        "to_draw": to_draw,
        "in_a_row": in_a_row,
    }


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
