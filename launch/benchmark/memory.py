"""Peak memory of loading, training and an audit: pnoise benchmark memory [--flags]

Measured: the peak resident set of a new process, as Linux counts it (VmHWM). It includes Python,
the imports and the compiler. For each model, one process each

  starts    imports everything, starts JAX on the CPU and creates the model, as the others do first
  loads     reads the model's weights from a safetensors file, as `weights.load` does
  trains    makes three training steps with AdamW
  audits    evaluates random images without noise, and with the optimal Q at the last layer in all
            orders of an audit, with its checks and interventions, without its purity sweep

The processes use huge pages if programs do, and return freed memory as programs do.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags
from jax.sharding import Mesh
from rich.console import Console
from safetensors.numpy import save_file

from pnoise_jax import models, noise, parallel, training, weights
from pnoise_jax.studies import leak

from . import measuring, report, workload

_MODELS = flags.DEFINE_list(
    "models", list(workload.FAMILIES), "Models to measure; see models.list_models()."
)
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=1)
flags.DEFINE_integer("batch_size", 8, "Images of a training step.", lower_bound=2)
flags.DEFINE_integer("examples", 320, "Images of the audit, of 5 classes.", lower_bound=80)
_OUT = flags.DEFINE_string("out", None, "JSON file for all figures.")

_STATUS = Path("/proc/self/status")
_STEPS = 3
_SETTINGS = leak.AuditSettings(batch_sizes=(16,), orders=20, purity_steps=0)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure for one model: the checked flags.

    Attributes:
      file: the file of the model's random weights; "" before it is written.
    """

    model: str
    image_size: int
    batch_size: int
    examples: int
    file: str


def main() -> None:
    """Measures, and prints and writes the results.

    Raises:
      ValueError: no model is named, or one is unknown, refuses the image size, or cannot be stored
        for timm.
      OSError: this system does not count the peak memory of a process.
    """
    if not _STATUS.exists():
        raise OSError(f"there is no {_STATUS}, where Linux counts the memory of a process")
    report.require_some("models", _MODELS.value, models.list_models())
    specs = [report.spec_of(Spec, model=name, file="") for name in _MODELS.value]
    for spec in specs:
        model = workload.create_model(spec)
        if weights.timm_reference(spec.model, model, channels=3) is None:
            raise ValueError(f"--models={spec.model}: timm has no such model; leave it out")
    console, where = report.start(_OUT.value)
    results = [_measure_model(console, spec) for spec in specs]
    content = {"benchmark": "memory", **where, "results": results}
    report.write(_OUT.value, console, content)


def _measure_model(console: Console, spec: Spec) -> dict:
    """The peak bytes of each kind of process."""
    with tempfile.TemporaryDirectory() as directory:
        file = str(Path(directory, "weights.safetensors"))
        variables = workload.draw_variables(workload.create_model(spec), spec.image_size)
        save_file(weights.timm_state(workload.flat(variables)), file)
        written = dataclasses.replace(spec, file=file)
        peaks = {}
        for what, act in _ACTS.items():
            measure = functools.partial(_measure, act)
            (result,) = measuring.measure_on(1, measure, written, keep_memory=False)
            peaks[what] = result["peak_bytes"]
    sizes = ", ".join(f"{what} {report.figure(peak / 2**30)}" for what, peak in peaks.items())
    console.print(f"{spec.model}, {spec.image_size} px, GiB: {sizes}")
    return dataclasses.asdict(spec) | {"peak_bytes": peaks}


def _measure(act: Callable[[Spec, Mesh], None], spec: Spec, mesh: Mesh) -> list[dict]:
    act(spec, mesh)
    return [{"peak_bytes": _peak()}]


def _peak() -> int:
    """The largest resident set of this process so far, bytes."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines["VmHWM"].removesuffix("kB")) * 1024


def _start(spec: Spec, mesh: Mesh) -> None:
    workload.create_model(spec)


def _load(spec: Spec, mesh: Mesh) -> None:
    weights.load(spec.file, workload.create_model(spec), report=lambda sentence: None)


def _train(spec: Spec, mesh: Mesh) -> None:
    task = training.Classification(model=workload.create_model(spec))
    state = workload.create_state(task, spec.image_size, mesh)
    batch = parallel.to_devices(workload.draw_batch(spec), parallel.split_batch(mesh))
    optimizer = workload.create_optimizer()
    step = training.jit_train_step(training.make_train_step(task, optimizer), mesh)
    key = parallel.random_key(0, mesh)
    for _ in range(_STEPS):
        state, metrics = step(state, batch, key)
    jax.block_until_ready(metrics)


def _audit(spec: Spec, mesh: Mesh) -> None:
    injection = noise.Injection.preset("optimal_all_tokens")
    model = workload.create_model(spec, num_classes=workload.AUDITED_CLASSES, injection=injection)
    variables = weights.load(spec.file, model, head="fresh", report=lambda sentence: None)
    dataset = workload.audited_dataset(spec.examples, spec.image_size)
    workload.run_audit(model, variables, dataset, _SETTINGS, mesh)


_ACTS = {"starts": _start, "loads": _load, "trains": _train, "audits": _audit}
