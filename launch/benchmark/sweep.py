"""Speed of training runs together, by vmap: python -m launch.benchmark sweep [--flags]

Measured: seconds of wall clock in which several runs of configs/digits_vit.py or digits_resnet.py,
of different seeds, each make one training step, states donated, on batches that are already on the
devices: one after another by the one compiled step that all of them share ("sequential"), and by
one program that moves all of them on at once ("together"). Compiling is the first call of each,
minus a later one.

Printed: how many times as long together takes as sequential in the same round, its median and
quartiles; the same for CPU time; and the ratio for whole runs, compiling included, at the medians.
"""

import dataclasses
import time
from collections.abc import Callable

import jax
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from configs import digits_resnet, digits_vit
from pnoise_jax import parallel, training
from pnoise_jax.training import open_together, start_together

from . import measuring, report

_CONFIGS = {"vit": digits_vit, "resnet": digits_resnet}

flags.DEFINE_enum("model", "vit", list(_CONFIGS), "Of configs/digits_….py.")
_RUNS = flags.DEFINE_list("runs", ["5"], "Numbers of runs to train.")
flags.DEFINE_integer("dim", None, "Features of the ViT, if not the config's.", lower_bound=4)
flags.DEFINE_integer("depth", None, "Blocks of the ViT.", lower_bound=1)
flags.DEFINE_integer("batch_size", 50, "Of a run, over all devices.", lower_bound=2)
_DEVICES = flags.DEFINE_list("devices", ["1"], "Numbers of devices to spread the batch over.")
flags.DEFINE_string("preset", None, "Train with this noise, its strength traced.")
flags.DEFINE_string("data_dir", None, "Where prepared data sets are kept.")
flags.DEFINE_integer("rounds", 12, "Steps of each alternative.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the flags, checked."""

    model: str
    runs: tuple[int, ...]
    dim: int | None
    depth: int | None
    batch_size: int
    preset: str | None
    data_dir: str | None
    rounds: int


def main() -> None:
    """Measures, prints and writes."""
    devices = report.whole_numbers("devices", _DEVICES.value, minimum=1)
    spec = report.spec_of(Spec, runs=report.whole_numbers("runs", _RUNS.value, minimum=2))
    report.require_divisible("batch_size", [spec.batch_size], devices)
    experiment_of(spec, seed=0)
    report.run("sweep", spec, measure, _print, devices=devices, out=_OUT.value)


def experiment_of(spec: Spec, *, seed: int) -> training.Experiment:
    """One of the runs."""
    config = _CONFIGS[spec.model].get_config()
    config.seed = seed
    config.batch_size = spec.batch_size
    config.data.data_dir = spec.data_dir
    config.noise.preset = spec.preset
    if spec.preset is not None:
        config.noise.train = True
    for name, value in (("dim", spec.dim), ("depth", spec.depth)):
        if value is not None:
            if spec.model != "vit":
                raise ValueError(f"--{name}={value}: only --model=vit has it")
            config.model[name] = value
    return training.build(config)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """One result for each number of runs."""
    return [{"runs": runs} | _measure(spec, runs, mesh) for runs in spec.runs]


def _measure(spec: Spec, runs: int, mesh: Mesh) -> dict:
    experiments = [experiment_of(spec, seed=seed) for seed in range(runs)]
    calls, third, compiling = {}, {}, {}
    for name, start in (("sequential", _sequential), ("together", _together)):
        calls[name] = start(experiments, mesh)
        seconds = []
        for _ in range(3):  # the first has no learning rate, the third sees what the second did
            began = time.perf_counter()
            third[name] = jax.block_until_ready(calls[name]())
            seconds.append(time.perf_counter() - began)
        compiling[name] = max(0.0, seconds[0] - seconds[2])
    what = f"{runs} runs: loss, top-1 and gradient norm of the third step"
    difference = measuring.require_agreement(what, third, tolerance=1e-3)
    compared = measuring.compare(measuring.interleave(calls, rounds=spec.rounds), to="sequential")
    steps = experiments[0].total_steps
    whole = {
        name: compiling[name] + steps * figures["seconds"]["median"]
        for name, figures in compared.items()
    }
    return {
        "alternatives": compared,
        "difference": difference,
        "compile_seconds": compiling,
        "steps": steps,
        "whole_ratio": whole["together"] / whole["sequential"],
    }


def _sequential(experiments: list[training.Experiment], mesh: Mesh) -> Callable:
    """A call that moves all runs on by a step, one after another; it returns their metrics."""
    program = training.create_program(experiments[0], mesh, any_strength=True)
    states = [program.create(jax.random.key(experiment.config.seed)) for experiment in experiments]
    constants = [program.constants(experiment) for experiment in experiments]
    with open_together(experiments) as batches:
        batch = next(batches)
    batches = [
        parallel.to_devices({k: x[run] for k, x in batch.items()}, program.batches)
        for run in range(len(experiments))
    ]

    def advance():
        metrics = []
        for run, batch in enumerate(batches):
            states[run], step_metrics = program.step(states[run], batch, *constants[run])
            metrics.append(step_metrics)
        return {name: [step_metrics[name] for step_metrics in metrics] for name in metrics[0]}

    return advance


def _together(experiments: list[training.Experiment], mesh: Mesh) -> Callable:
    """The same by one program."""
    program = training.create_program(experiments[0], mesh, any_strength=True, together=True)
    states, constants = start_together(experiments, program)
    with open_together(experiments) as batches:
        batch = parallel.to_devices(next(batches), program.batches)

    def advance():
        nonlocal states
        states, metrics = program.step(states, batch, *constants)
        return {name: list(values) for name, values in metrics.items()}

    return advance


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    devices = results[0]["devices"]
    rows = []
    for result in results:
        alternatives, compiling = result["alternatives"], result["compile_seconds"]
        rows.append(
            [
                str(result["runs"]),
                report.milliseconds(alternatives["sequential"]),
                report.ratio(alternatives["together"]),
                report.figure(alternatives["together"]["cpu_ratio"]["median"]),
                f"{report.figure(compiling['sequential'])}, {report.figure(compiling['together'])}",
                report.figure(result["whole_ratio"]),
            ]
        )
    title = (
        f"{devices} x {results[0]['device_kind']}, digits_{spec.model}, batch {spec.batch_size}, "
        f"{spec.rounds} rounds\n"
        "ms: one step of all runs, sequential; ratio: time together / sequential, median "
        "(quartiles)\n"
        f"whole: the ratio for {results[0]['steps']} steps, compiling included"
    )
    columns = ["runs", "ms", "ratio", "CPU time", "compile s, seq., tog.", "whole"]
    console.print(report.table(title, columns, rows))
    largest = max(result["difference"]["together"] for result in results)
    console.print(
        "before timing, both agreed in loss, top-1 and gradient norm; "
        f"largest difference {largest:.2g}\n"
    )
