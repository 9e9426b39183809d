"""How cost grows with size: pnoise benchmark growth [--flags]

Measured: the CPU seconds of all threads, and the wall-clock seconds,

  batch, tokens, width, depth  of a training step of a small ViT on one device
  devices                      of the same step with one batch split over several devices
  classes, examples            of an audit of a function that looks its logits up in a table
  cells                        of planning a sweep over strengths and seeds of configs/digits_vit.py

Each axis grows alone: everything else stays at the second size that its flag lists. The sizes of an
axis take turns, and in each round a straight line is fitted to the logarithms of time and size. Its
slope is the exponent of that round.

Printed: the median and quartiles of the exponent, for CPU time and for wall-clock time, and the
largest expected exponent: for a step on one device, the exponent of its FLOPs over the same sizes,
as the compiler counts them; for devices 0; for everything else 1. Time that does not depend on the
size lowers an exponent. The axes whose lower quartile, in CPU time, is more than 0.15 above the
expected exponent are listed below the table.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import parallel, studies
from pnoise_jax.studies.sweep import build_cells, plan, product

from ..main import whole_numbers
from ..run_flags import built_in_config
from . import measuring, report
from .workload import Advance, SmallStep

# For each axis, the flag that lists its sizes.
AXES = {
    "batch": "batch_size",
    "tokens": "image_size",
    "width": "dim",
    "depth": "depth",
    "classes": "classes",
    "examples": "examples",
    "cells": "cells",
    "devices": "devices",
}
_AXES = flags.DEFINE_list("axes", list(AXES), f"What grows; of {', '.join(AXES)}.")
_SIZES = {
    flag: flags.DEFINE_list(flag, sizes.split(), meaning)
    for flag, sizes, meaning in (
        ("batch_size", "16 32 64 128", "Examples of a step."),
        ("image_size", "32 64 96 128", "Sides of a step's images, in pixels; patches have 8."),
        ("dim", "64 128 256 512", "Features of a token; a head has 32."),
        ("depth", "1 2 4 8", "Numbers of blocks."),
        ("classes", "100 250 600 1500", "Classes of an audit."),
        ("examples", "2000 4000 8000 16000", "Examples of an audit."),
        ("cells", "250 500 1000 2000", "Cells of a sweep, of 10 seeds each."),
        ("devices", "1 2 4 8", "Devices that share a step's batch."),
    )
}
flags.DEFINE_integer("rounds", 7, "Number of measurements of each size.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all exponents and times.")

_SEEDS = 10  # per setting of a sweep
_AUDIT = studies.AuditSettings(batch_sizes=(10,), orders=20, mixed_batches=True)

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    axes: tuple[str, ...]
    batch_size: tuple[int, ...]
    image_size: tuple[int, ...]
    dim: tuple[int, ...]
    depth: tuple[int, ...]
    classes: tuple[int, ...]
    examples: tuple[int, ...]
    cells: tuple[int, ...]
    devices: tuple[int, ...]
    rounds: int

    def sized(self, axis: str) -> list[dict[str, int]]:
        """The sizes at each point of an axis, by flag."""
        fixed = {flag: getattr(self, flag)[1] for flag in _SIZES}
        return [fixed | {AXES[axis]: size} for size in getattr(self, AXES[axis])]


def main() -> None:
    """Measures, and prints and writes the results."""
    for axis in _AXES.value or [""]:
        report.require_known("axes", axis, AXES)
    sizes = {flag: whole_numbers(flag, each.value, minimum=1) for flag, each in _SIZES.items()}
    for flag, values in sizes.items():
        if len(values) < 2:
            given = ",".join(map(str, values))
            raise ValueError(f"--{flag}={given}: an exponent needs two sizes; give one more")
    spec = report.spec_of(Spec, axes=tuple(dict.fromkeys(_AXES.value)), **sizes)
    _require_possible(spec)
    devices = max(spec.devices) if "devices" in spec.axes else 1
    report.run("growth", [spec], measure, _print, devices=(devices,), out=_OUT.value)


def _require_possible(spec: Spec) -> None:
    """Raises ValueError, with the flag, for sizes that cannot be measured."""
    if "devices" in spec.axes:
        report.require_divisible("batch_size", spec.batch_size[1:2], spec.devices)
    for axis in spec.axes:
        for sizes in spec.sized(axis):
            _step_of(sizes)
            report.require_multiple("cells", sizes["cells"], _SEEDS)
            labels = _labels(sizes["examples"], sizes["classes"])
            _AUDIT.for_labels(labels, f"--examples={len(labels)} --classes={sizes['classes']}")


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """A result for each axis."""
    return [_measure(spec, axis, mesh) for axis in spec.axes]


def _measure(spec: Spec, axis: str, mesh: Mesh) -> dict:
    sized = spec.sized(axis)
    calls = [_prepare(axis, sizes, mesh) for sizes in sized]
    sizes = [_step_of(s).tokens if axis == "tokens" else s[AXES[axis]] for s in sized]
    result: dict[str, Any] = {"axis": axis, "sizes": sizes, "expected": 1.0}
    if isinstance(calls[0], Advance):
        result["flops"] = [advance.flops for advance in calls]  # of a device
        (result["expected"],) = measuring.exponents(sizes, [[f] for f in result["flops"]])
    if axis == "devices":
        result["expected"] = 0.0
    result["devices"] = max(sizes) if axis == "devices" else 1
    named = dict(zip(map(str, sizes), calls, strict=True))
    times = list(measuring.interleave(named, rounds=spec.rounds).values())
    for clock in ("cpu", "wall"):
        seconds = [getattr(each, clock) for each in times]
        exponents = measuring.exponents(sizes, seconds)
        result[clock] = {
            "seconds": list(map(measuring.spread, seconds)),
            "exponent": measuring.spread(exponents),
            "exponents": exponents,
        }
    exceeds = measuring.exceeds(result["cpu"]["exponent"], result["expected"])
    return result | {"exceeds_expected": exceeds}


def _prepare(axis: str, sizes: Mapping[str, int], mesh: Mesh) -> Any:
    """The function to time at these sizes, called once: an `Advance` or another function."""
    if axis in ("classes", "examples"):
        call = _audit(sizes["examples"], sizes["classes"])
        call()
    elif axis == "cells":
        call = _plan(sizes["cells"])
        call()
    else:
        devices = mesh.devices.ravel()[: sizes["devices"] if axis == "devices" else 1]
        call = _advance(_step_of(sizes), parallel.make_mesh(devices.tolist()))
    return call


def _step_of(sizes: Mapping[str, int]) -> SmallStep:
    return SmallStep(**{field.name: sizes[field.name] for field in dataclasses.fields(SmallStep)})


@functools.cache  # several axes share the step with the second size of each flag
def _advance(step: SmallStep, mesh: Mesh) -> Advance:
    return step.make_advance(mesh)


def _audit(examples: int, classes: int) -> Call:
    """An audit of a look-up that mixes in a tenth of a neighbour, so that every test is run."""
    labels = _labels(examples, classes)
    logits = np.random.default_rng(0).standard_normal((examples, classes), np.float32)
    logits[np.arange(examples), labels] += 3

    def look_up(rows: np.ndarray) -> np.ndarray:
        return logits[rows]

    def mix(rows: np.ndarray) -> np.ndarray:
        return logits[rows] + np.float32(0.1) * logits[np.roll(rows, 1)]

    def audit() -> None:
        studies.audit(mix, (np.arange(examples), labels), clean=look_up, settings=_AUDIT)

    return audit


def _labels(examples: int, classes: int) -> np.ndarray:
    return (np.arange(examples) % classes).astype(np.int32)


def _plan(cells: int) -> Call:
    base = built_in_config("digits_vit")
    base.noise.preset = "paper_vit"
    base.batch_size = 8 * jax.device_count()  # must be divisible by the number of devices
    strengths = np.linspace(0.1, 0.4, cells // _SEEDS).tolist()
    overrides = product({"noise.strength": strengths, "seed": range(_SEEDS)})

    def plan_sweep() -> None:
        plan(build_cells(base, overrides))

    return plan_sweep


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    rows = []
    for result in results:
        cpu = [report.figure(1000 * seconds["median"]) for seconds in result["cpu"]["seconds"]]
        rows.append(
            [
                result["axis"],
                ", ".join(map(str, result["sizes"])),
                ", ".join(cpu),
                _said(result["cpu"]["exponent"]),
                _said(result["wall"]["exponent"]),
                f"{result['expected']:z.2f}",
            ]
        )
    title = (
        f"{results[0]['device_kind']}, {spec.rounds} rounds; exponents: median (quartiles)\n"
        "expected: at most; from batch to depth, the exponent of the step's FLOPs"
    )
    columns = ["axis", "sizes", "CPU ms", "exponent", "wall-clock", "expected"]
    console.print(report.table(title, columns, rows))
    for result in results:
        if result["exceeds_expected"]:
            say = f"{result['axis']}: the time grows faster than expected"
            console.print(say, style="yellow", soft_wrap=True)


def _said(exponent: Mapping[str, float]) -> str:
    names = ("median", "lower_quartile", "upper_quartile")
    median, low, high = (f"{exponent[name]:z.2f}" for name in names)
    return f"{median} ({low} to {high})"
