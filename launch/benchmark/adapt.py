"""Speed of the methods of domain adaptation: pnoise benchmark adapt [--flags]

Measured: the wall-clock seconds of the gradient of each method's whole loss, on batches of both
domains that are already on the devices; and of its parts, the forward and backward pass of the
plain model on the source and then on the target. All are compiled, without noise and optimiser.

Printed: a method's time divided by its parts' time in the same round, as median and quartiles; the
median of the same ratio for CPU time, which other programs affect less; and the goal. SSRT and
CDTrans compute more than their parts: from a randomly drawn layer on, SSRT runs three passes
instead of two, and CDTrans runs three branches instead of two.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import data, parallel, training
from pnoise_jax.training import TASKS, RandomStreams, StepContext, Task

from . import measuring, report, workload

GOALS = {"dann": 1.15, "tvt": 1.15, "ssrt": 1.7, "cdtrans": 1.6}  # upper bounds of the ratios
_CLASSES = 65
_PARTS = "parts"

_METHODS = flags.DEFINE_list("methods", list(GOALS), "Methods to compare with their parts.")
flags.DEFINE_string("model", "vit_ti_16", "The model; see models.list_models().")
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=1)
flags.DEFINE_integer("batch_size", 8, "Images of each domain.", lower_bound=2)
flags.DEFINE_integer("rounds", 12, "How often each alternative is called.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    methods: tuple[str, ...]
    model: str
    image_size: int
    batch_size: int
    rounds: int


def main() -> None:
    """Measures, and prints and writes the results."""
    if not _METHODS.value:
        raise ValueError(f"--methods is empty: use one of {', '.join(GOALS)}")
    for method in _METHODS.value:
        report.require_known("methods", method, GOALS)
        _ = TASKS[method]
    spec = report.spec_of(Spec, methods=tuple(_METHODS.value))
    workload.create_model(spec)
    report.run("adapt", [spec], measure, _print, out=_OUT.value)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """One result: every method against the sum of its parts."""
    for name in ("source", "target"):
        images = np.zeros((spec.batch_size, spec.image_size, spec.image_size, 3), np.uint8)
        labels = np.arange(spec.batch_size) % _CLASSES
        splits = {"train": (images, labels), "test": (images, labels)}
        names = tuple(f"class {number}" for number in range(_CLASSES))
        made = data.InMemory(splits, class_names=names)
        data.register_dataset(f"benchmark_{name}")(lambda made=made: made)
    batch = parallel.to_devices(_draw(spec), parallel.split_batch(mesh))
    calls = {_PARTS: _parts(spec, batch)}
    for method in spec.methods:
        calls[method] = _gradient(_task(spec, method), batch)
    for call in calls.values():  # compile and warm up
        jax.block_until_ready(call())
        jax.block_until_ready(call())
    times = measuring.interleave(calls, rounds=spec.rounds)
    return [{"alternatives": measuring.compare(times, to=_PARTS), "goals": GOALS}]


def _task(spec: Spec, method: str) -> Task:
    """A method's task on random data, with its defaults."""
    config = training.default_config()
    config.model = training.model_config(spec.model)
    section = config.model if "image_size" in config.model else config.data
    section.image_size = spec.image_size
    config.batch_size = spec.batch_size
    config.duration = "10000 steps"
    config.data.name = "benchmark_target"
    config.task = training.task_config(method, source="benchmark_source")
    return training.build(config).task


def _parts(spec: Spec, batch: dict[str, jax.Array]) -> Callable[[], Any]:
    """The plain model's gradients on the source, then on the target."""
    model = workload.create_model(spec, num_classes=_CLASSES)
    task = training.Classification(model=model, mean=(0.5,), std=(0.5,))
    source = {"image": batch["image"], "label": batch["label"]}
    target = {"image": batch["target_image"], "label": batch["pseudo_label"]}
    calls = [_gradient(task, half) for half in (source, target)]
    return lambda: [call() for call in calls]


def _gradient(task: Task, batch: dict[str, jax.Array]) -> Callable[[], Any]:
    """A function that computes the gradient of a task's loss, with new random numbers each time."""
    shape = jax.ShapeDtypeStruct((1, *batch["image"].shape[1:]), jnp.float32)
    state = dict(jax.jit(lambda key: task.init(key, shape))(jax.random.key(0)))
    params = state.pop("params")
    state.setdefault("batch_stats", {})
    gradients = jax.value_and_grad(task.loss, has_aux=True)

    @jax.jit
    def run(params, state, batch, step):
        streams = RandomStreams(jax.random.fold_in(jax.random.key(1), step))
        return gradients(params, state, batch, StepContext(step, streams))

    count = 0

    def call():
        nonlocal count
        count += 1
        return run(params, state, batch, np.int32(count))

    return call


def _draw(spec: Spec) -> dict[str, np.ndarray]:
    """A random batch of both domains."""
    source, target = (workload.draw_batch(spec, classes=_CLASSES, seed=seed) for seed in (0, 1))
    return {**source, "target_image": target["image"], "pseudo_label": target["label"]}


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    (result,) = results
    alternatives = result["alternatives"]
    rows = [[_PARTS, report.milliseconds(alternatives[_PARTS]), "", "", ""]]
    for method in spec.methods:
        times = alternatives[method]
        cpu_ratio = report.figure(times["cpu_ratio"]["median"])
        goal = f"at most {GOALS[method]:g}"
        rows.append([method, report.milliseconds(times), report.ratio(times), cpu_ratio, goal])
    title = (
        f"{result['device_kind']}, gradients of {spec.model}, {spec.image_size} px, "
        f"{spec.batch_size} images of each domain, float32, {spec.rounds} rounds\n"
        "time / time of the parts, source and target by the plain model: median (quartiles)"
    )
    console.print(report.table(title, ["method", "ms", "ratio", "CPU time", "goal"], rows))
