"""Communication and memory traffic of each noise: pnoise benchmark exchanges [--flags]

Nothing is timed: each noise is compiled for x of shape (k, *shape), whose batch axis is spread over
the devices, and the exchanges are read from the program, forward (x to noisy x) and backward (the
gradient with respect to x). Printed: the bytes that a device sends, also in rows of x and as a
share of the device's rows; and its memory traffic, counted in the program's text, divided by the
minimum, reading and writing its rows once. --topology=v5e:4x4 compiles for TPUs, with libtpu, and
h100:8 for GPUs, with JAX's CUDA plugin; see pnoise compile.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
from absl import flags
from rich import box
from rich.console import Console
from rich.table import Table

from pnoise_jax.studies import ahead_of_time

from ..main import whole_numbers
from . import report

_TOPOLOGY = flags.DEFINE_string("topology", "cpu:8", "Devices, as in pnoise compile.")
_K = flags.DEFINE_integer("k", 64, "Batch size: the number of rows that are mixed.", lower_bound=2)
_SHAPE = flags.DEFINE_list("shape", ["197", "768"], "Shape of a row: tokens and features.")
_FSDP = flags.DEFINE_list("fsdp", ["1", "4"], "Devices that share parameters; one mesh for each.")
_TENSOR_PARALLEL = flags.DEFINE_list(
    "tensor_parallel",
    ["1"],
    "Devices that have the same rows; one mesh for each, combined with each --fsdp.",
)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype of x.")
_OUT = flags.DEFINE_string("out", None, "JSON file for all figures.")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to compile: the checked flags."""

    topology: str
    k: int
    shape: tuple[int, ...]
    fsdp: tuple[int, ...]
    tensor_parallel: tuple[int, ...]
    dtype: str


def main() -> None:
    """Compiles, and prints and writes the figures."""
    jax.config.update("jax_platforms", "cpu")  # plugins would look for devices
    shape = whole_numbers("shape", _SHAPE.value, minimum=1, repeats=True)
    fsdp = whole_numbers("fsdp", _FSDP.value, minimum=1)
    shared = whole_numbers("tensor_parallel", _TENSOR_PARALLEL.value, minimum=1)
    spec = report.spec_of(Spec, shape=shape, fsdp=fsdp, tensor_parallel=shared)
    topology = ahead_of_time.open_topology(spec.topology)
    report.require_divisible("k", [spec.k], [len(topology.devices)])
    console, where = report.start(_OUT.value)
    results = [
        {"fsdp": fsdp, "tensor_parallel": shared, **case}
        for fsdp, shared in itertools.product(spec.fsdp, spec.tensor_parallel)
        for case in ahead_of_time.noise_exchanges(
            spec.k, spec.shape, jnp.dtype(spec.dtype), topology.mesh(fsdp, shared)
        )
    ]
    _print(console, spec, len(topology.devices), results)
    content = {"benchmark": "exchanges", **where, "specs": [dataclasses.asdict(spec)]}
    report.write(_OUT.value, console, content | {"results": results})


def _print(console: Console, spec: Spec, devices: int, results: list[dict]) -> None:
    row = math.prod(spec.shape) * jnp.dtype(spec.dtype).itemsize
    console.print(
        f"x of {spec.k} rows of {row:,} bytes, split over {devices} devices ({spec.topology}), "
        "or groups of --tensor_parallel of them: bytes that a device sends, and its memory traffic "
        "divided by the minimum (from the program's text, not measured)"
    )
    table = Table("noise", "pass", "fsdp", "tensor_parallel", "by", box=box.SIMPLE)
    for name in ("bytes", "rows", "of its own rows", "traffic / least"):
        table.add_column(name, justify="right")
    for result in results:
        total = sum(result["sent"].values())
        table.add_row(
            result["noise"],
            result["pass"],
            str(result["fsdp"]),
            str(result["tensor_parallel"]),
            ", ".join(result["sent"]) or "nothing",
            f"{total:,.0f}",
            f"{total / row:.3g}",
            f"{total / row / (result['tensor_parallel'] * spec.k / devices):.0%}",
            f"{result['traffic'] / result['least']:.2f}",
        )
    console.print(table)
