"""Speed of training several runs at once, with vmap: pnoise benchmark sweep [--flags]

Measured: the wall-clock seconds of one training step of each of several runs of
configs/digits_vit.py that differ in their seed, on batches that are already on the device. Either a
compiled step that all runs share is called for one run after another ("sequential"), or one program
makes the step of all of them ("together"). The compile time is the time of the first call minus the
time of a later one. On a GPU, each is called 5 times in a row, because a run does not wait for a
step.

Printed: the time together divided by the sequential time in the same round, as median and
quartiles; the same for CPU time; and the ratio of the medians for whole runs, including compiling.
"""

import dataclasses
import time
from collections.abc import Callable

import jax
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import parallel, training
from pnoise_jax.training import open_together, start_together

from ..main import whole_numbers
from ..run_flags import built_in_config
from . import measuring, report

_RUNS = flags.DEFINE_list("runs", ["5"], "Numbers of runs to train.")
flags.DEFINE_integer("batch_size", 50, "Examples per step of a run.", lower_bound=2)
flags.DEFINE_string("preset", None, "Train with the noise of this preset; its strength is traced.")
flags.DEFINE_integer("rounds", 12, "Number of timings of each alternative.", lower_bound=1)
_IN_A_ROW = 5  # steps of all runs, on a GPU
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    runs: tuple[int, ...]
    batch_size: int
    preset: str | None
    rounds: int


def main() -> None:
    """Measures, and prints and writes the results."""
    measuring.keep_accelerators_free()
    spec = report.spec_of(Spec, runs=whole_numbers("runs", _RUNS.value, minimum=2))
    if spec.preset is not None:
        report.require_preset(spec.preset)
    experiment_of(spec, seed=0)
    report.run("sweep", [spec], measure, _print, out=_OUT.value)


def experiment_of(spec: Spec, *, seed: int) -> training.Experiment:
    """The run of a seed."""
    config = built_in_config("digits_vit")
    config.seed = seed
    config.batch_size = spec.batch_size
    config.noise.preset = spec.preset
    if spec.preset is not None:
        config.noise.train = True
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
        # The learning rate of the first step is 0, so only the third shows the second's update.
        for _ in range(3):
            began = time.perf_counter()
            third[name] = jax.block_until_ready(calls[name]())
            seconds.append(time.perf_counter() - began)
        compiling[name] = max(0.0, seconds[0] - seconds[2])
    what = f"{runs} runs: loss and gradient norm of the third step"
    difference = measuring.require_same_step(what, third, dtype="float32")
    in_a_row = measuring.in_a_row(_IN_A_ROW)
    calls = {name: measuring.repeat(call, in_a_row) for name, call in calls.items()}
    times = measuring.interleave(calls, rounds=spec.rounds, per_call=in_a_row)
    compared = measuring.compare(times, to="sequential")
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
    """A function that makes a step of each run, one after another, and returns their metrics."""
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
    """A function that makes a step of all runs in one program, and returns their metrics."""
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
        f"{results[0]['device_kind']}, digits_vit, batch {spec.batch_size}, "
        f"{spec.rounds} rounds\n"
        "ms: one step of all runs, sequential; ratio: time together / sequential, median "
        "(quartiles)\n"
        f"whole: the ratio for {results[0]['steps']} steps, compiling included"
    )
    columns = ["runs", "ms", "ratio", "CPU time", "compile s, seq., tog.", "whole"]
    console.print(report.table(title, columns, rows))
    report.say_agreement(console, "loss and gradient norm of both", results)
