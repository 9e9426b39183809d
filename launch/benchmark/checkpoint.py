"""Saving and restoring a training state: pnoise benchmark checkpoint [--flags]

Measured: the time for which `Checkpoints.save` blocks the training, that is, for checksums and a
copy on the host; the time until the checkpoint is on disk, which includes three training steps run
meanwhile; the time to restore it and verify its checksums, from files that the system may still
have in memory; and training steps with and without a checkpoint being written, on a batch that is
already on the devices. The state is the training state of a model with AdamW, on --devices that
share it in groups of --fsdp.

Printed: seconds, seconds per GB of state, and the share of the training time that is lost if a
checkpoint is written every 15 minutes, the default of checkpoint.at_most.
"""

import dataclasses
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import models, parallel, training
from pnoise_jax.runs import Checkpoints

from ..main import whole_numbers
from . import measuring, report, workload

_MODELS = flags.DEFINE_list("models", ["vit_ti_16"], "The models; see models.list_models().")
flags.DEFINE_integer("image_size", 224, "Side of the images.", lower_bound=1)
flags.DEFINE_integer("batch_size", 16, "Examples per step.", lower_bound=1)
_DEVICES = flags.DEFINE_list("devices", ["1"], "Numbers of devices that the state is spread over.")
flags.DEFINE_integer("fsdp", 1, "Devices that share one copy of the state.", lower_bound=1)
flags.DEFINE_integer("rounds", 5, "Number of measurements.", lower_bound=1)
flags.DEFINE_string("dir", None, "An existing directory to write in; by default a temporary one.")
_OUT = flags.DEFINE_string("out", None, "JSON file for all times.")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    model: str
    image_size: int
    batch_size: int
    fsdp: int
    rounds: int
    dir: str | None


def main() -> None:
    """Measures, and prints and writes the results."""
    devices = whole_numbers("devices", _DEVICES.value, minimum=1)
    specs = [report.spec_of(Spec, model=model) for model in _MODELS.value]
    for spec in specs:
        report.require_known("models", spec.model, models.list_models())
        workload.create_model(spec)
        report.require_divisible("batch_size", [spec.batch_size], devices)
        for count in devices:
            parallel.require_mesh(spec.fsdp, devices=count)
        if spec.dir is not None and not Path(spec.dir).is_dir():
            raise ValueError(f"--dir={spec.dir} is not a directory; create it first")
    report.run("checkpoint", specs, measure, _print, devices=devices, out=_OUT.value)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """One result: the times of each round."""
    del mesh
    mesh = parallel.training_mesh(spec.fsdp)
    task = training.Classification(model=workload.create_model(spec))
    state = workload.create_state(task, spec.image_size, mesh)
    state = jax.device_put(state, parallel.place(state, mesh))
    batch = parallel.to_devices(workload.draw_batch(spec), parallel.split_batch(mesh))
    advance = _make_advance(task, state, batch, mesh)
    for _ in range(2):
        jax.block_until_ready(advance())
    directory = Path(tempfile.mkdtemp(prefix="pnoise-checkpoint-", dir=spec.dir))
    try:
        rounds = [_measure_round(directory / f"{n}", advance) for n in range(spec.rounds + 1)]
    finally:
        shutil.rmtree(directory)
    times = {name: [each[name] for each in rounds[1:]] for name in rounds[0]}  # 0 compiles
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return [
        {
            "model": spec.model,
            "bytes": size,
            "seconds": {name: measuring.spread(values) for name, values in times.items()},
            "every_seconds": 60 * float(training.default_config().checkpoint.at_most.split()[0]),
        }
    ]


def _make_advance(task: Any, state: Any, batch: Any, mesh: Mesh) -> workload.Advance:
    step: Any = training.jit_train_step(
        training.make_train_step(task, workload.create_optimizer()),
        mesh,
        places=jax.tree.map(lambda leaf: leaf.sharding, state) if parallel.is_split(mesh) else None,
    )
    key = parallel.random_key(0, mesh)
    compiled = step.lower(state, batch, key).compile()
    return workload.Advance(compiled, jax.tree.map(jnp.copy, state), batch, key)


def _measure_round(directory: Path, advance: workload.Advance) -> dict[str, float]:
    """Seconds of a step alone, of a save and the steps during it, and of restoring."""
    directory.mkdir()
    alone = _seconds(advance)
    checkpoints = Checkpoints(directory, keep=1)
    step = int(advance.state.step)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), advance.state
    )
    began = time.perf_counter()
    checkpoints.save(step, advance.state)
    blocked = time.perf_counter() - began
    during_save = _seconds(advance)
    checkpoints.wait()
    saved = time.perf_counter() - began
    checkpoints.close()
    checkpoints = Checkpoints(directory, keep=1)
    began = time.perf_counter()
    restored = checkpoints.restore(like)
    assert restored is not None
    jax.block_until_ready(restored[0])
    seconds = time.perf_counter() - began
    checkpoints.close()
    shutil.rmtree(directory)
    return {
        "blocked": blocked,
        "save": saved,
        "restore": seconds,
        "step": alone,
        "step while it is written": during_save,
    }


def _seconds(advance: workload.Advance) -> float:
    """The median time of three steps."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        jax.block_until_ready(advance())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    (result,) = results
    size = result["bytes"] / 1e9
    rows = []
    for name, seconds in result["seconds"].items():
        per_gb = "" if name.startswith("step") else report.figure(seconds["median"] / size)
        median, *quartiles = (
            report.figure(seconds[each], decimals=3)
            for each in ("median", "lower_quartile", "upper_quartile")
        )
        rows.append([name, median, "-".join(quartiles), per_gb])
    title = (
        f"{result['devices']} x {result['device_kind']}, state of {spec.model}: {size:.3f} GB, "
        f"fsdp={spec.fsdp}, {spec.rounds} rounds"
    )
    console.print(report.table(title, ["", "seconds", "quartiles", "s per GB"], rows))
    lost = result["seconds"]["blocked"]["median"] / result["every_seconds"]
    console.print(
        f"A checkpoint every {result['every_seconds'] / 60:g} minutes delays the training by "
        f"{lost:.3%} of its time, that is, of each step on average.\n"
    )
