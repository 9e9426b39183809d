"""Speed of the models against timm's: python -m launch.benchmark models [--flags]

Measured: the wall-clock seconds of a forward pass in evaluation and of a training step with AdamW,
on a batch of random images, for one model of each family. Ours are compiled by XLA; timm's run in
PyTorch's eager mode, as in its training script, and with --compiled also by torch.compile, which
takes minutes per model to compile. All use all cores and the same weights.

Printed: our time divided by timm's in the same round, as median and quartiles; and the median of
the same ratio with CPU time, which other programs affect less. PyTorch and timm must be installed
(pip install torch timm); without them, only our times are printed. On a machine with an
accelerator, JAX_PLATFORMS=cpu makes both run on the CPU.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import traverse_util
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import models, parallel, training, weights
from pnoise_jax.terminal import say

from . import measuring, report, timm_step, workload

# The smallest of each family.
_FAMILIES = ("vit_ti_16", "vit_little_16_reg4", "deit_ti_16_distilled", "beit_b_16", "swin_t")
_FAMILIES += ("swinv2_t", "convit_ti", "davit_t", "maxvit_t", "resnet18")
_MODELS = flags.DEFINE_list(
    "models", list(_FAMILIES), "Models to measure; see models.list_models()."
)
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=1)
flags.DEFINE_integer("batch_size", 2, "Images per batch.", lower_bound=2)
flags.DEFINE_integer("rounds", 5, "How often each alternative is called.", lower_bound=1)
flags.DEFINE_bool("compiled", False, "Whether timm's models are also compiled by torch.compile.")
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

MEAN = STD = (0.5,)
_COMPILED = "timm compiled"


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure of one model: the flags, after they were checked."""

    model: str
    image_size: int
    batch_size: int
    rounds: int
    with_timm: bool
    compiled: bool


def main() -> None:
    """Measures, prints and writes."""
    with_timm = all(importlib.util.find_spec(name) for name in ("torch", "timm"))
    compiled = with_timm and flags.FLAGS.compiled
    specs = [
        report.spec_of(Spec, model=name, with_timm=with_timm, compiled=compiled)
        for name in _MODELS.value
    ]
    for spec in specs:
        workload.create_model(spec)
    if not with_timm:
        say("PyTorch and timm are not installed: only our times (pip install torch timm)")
    elif compiled:
        timm_step.require_compiler()
    # PyTorch's idle threads else keep the cores busy for a while, from ours and other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    report.run("models", specs, measure, _print, out=_OUT.value)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """Two results, for the forward pass and for the training step: ours against timm's."""
    model = workload.create_model(spec)
    variables = _draw_variables(model, spec.image_size)
    batch = workload.draw_batch(spec)
    calls = {"ours": _ours(model, variables, batch, mesh)}
    if spec.with_timm:
        reference = weights.timm_reference(spec.model, model, channels=3)
        assert reference is not None, f"timm has no {spec.model}"
        name, arguments = reference
        state = weights.timm_state(_flat(variables))
        for compiled in (False, True)[: 1 + spec.compiled]:
            calls[_COMPILED if compiled else "timm"] = timm_step.prepare(
                name,
                arguments,
                state,
                batch,
                learning_rate=workload.LEARNING_RATE,
                weight_decay=training.default_config().optimizer.weight_decay,
                compiled=compiled,
            )
    results = []
    for number, what in enumerate(("forward", "training step")):
        alternatives = {name: pair[number] for name, pair in calls.items()}
        # The logits, or the loss of the first step.
        firsts = {name: np.asarray(call()) for name, call in alternatives.items()}
        tolerance = 1e-3 * max(1.0, float(np.abs(firsts["ours"]).max()))
        difference = measuring.require_agreement(spec.model, firsts, tolerance=tolerance)
        for call in alternatives.values():
            call()
        times = measuring.interleave(alternatives, rounds=spec.rounds)
        compared = measuring.compare(times, to="timm" if spec.with_timm else "ours")
        result = {"what": what, "alternatives": compared, "difference": difference}
        if spec.compiled:
            result["to_compiled"] = measuring.compare(times, to=_COMPILED)["ours"]
        results.append(dataclasses.asdict(spec) | result)
    return results


def _draw_variables(model: models.Classifier, image_size: int) -> dict:
    """Random values for all variables, so that a difference shows in the logits."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("var", "scale", "gamma_1", "gamma_2"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if name == "kernel" else 2500
        return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, dict(workload.abstract_variables(model, image_size)))


def _flat(variables: dict) -> dict[str, Any]:
    return dict(traverse_util.flatten_dict(variables, sep="/"))


def _ours(model, variables: dict, batch: dict, mesh: Mesh) -> tuple[Callable, Callable]:
    """A call of the forward pass, which returns logits, and of a step, which returns its loss."""
    images = (jnp.asarray(batch["image"], jnp.float32) / 255 - MEAN[0]) / STD[0]
    apply = jax.jit(model.apply)
    on_device = jax.device_put(variables, parallel.replicated(mesh))
    task = training.Classification(model=model, mean=MEAN, std=STD)
    state = workload.create_state(task, images.shape[1], mesh, imported=_flat(variables))
    batch = parallel.to_devices(batch, parallel.split_batch(mesh))
    advance = workload.make_advance(task, state, batch, mesh)
    return lambda: apply(on_device, images), lambda: advance()[1]["loss"]


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    columns, rows = ["", "ours, ms"], []
    if spec.with_timm:
        columns += ["timm, ms", "ratio", "CPU time"]
    if spec.compiled:
        columns += ["timm compiled, ms", "ratio", "CPU time"]
    for result in results:
        compared = result["alternatives"]
        row = [result["what"], report.milliseconds(compared["ours"])]
        if spec.with_timm:
            row += [report.milliseconds(compared["timm"]), *_ratios(compared["ours"])]
        if spec.compiled:
            row += [report.milliseconds(compared[_COMPILED]), *_ratios(result["to_compiled"])]
        rows.append(row)
    title = (
        f"{results[0]['device_kind']}, {spec.model}, {spec.image_size} px, "
        f"batch {spec.batch_size}, float32, {spec.rounds} rounds"
    )
    if spec.with_timm:
        title += "\ntime of this package / time of timm: median (quartiles)"
    console.print(report.table(title, columns, rows))
    report.say_agreement(console, "logits and the first loss", results)


def _ratios(ours: dict[str, Any]) -> list[str]:
    """Of the time by the clock and of the CPU time."""
    return [report.ratio(ours), f"{ours['cpu_ratio']['median']:.2f}"]
