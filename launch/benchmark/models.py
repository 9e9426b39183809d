"""Speed of the models against timm's: python -m launch.benchmark models [--flags]

Measured, for one model of each family: seconds of wall clock of the forward pass in evaluation, and
of a whole training step (AdamW), on a batch of random images; ours compiled by XLA, timm's in
PyTorch's eager mode, as its training script runs it, both on all cores, with the same weights.

Printed: how many times as long as timm's ours takes in the same round, median and quartiles; and
the median of the same for CPU time, which other programs disturb less. PyTorch and timm must be
installed beside this project (pip install torch timm); without them there are our times alone. For
the CPU: JAX_PLATFORMS=cpu, where there is an accelerator.
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
from pnoise_jax.training import optimizer as optimizers

from . import measuring, report, timm_step

# The smallest of each family.
_FAMILIES = ("vit_ti_16", "deit_ti_16_distilled", "beit_b_16", "swin_t", "convit_ti", "resnet18")
_MODELS = flags.DEFINE_list("models", list(_FAMILIES), "Of models.list_models().")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side of an image, pixels.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 2, "Images.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Calls of each alternative.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

MEAN = STD = (0.5,)
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.05


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the flags, checked, of one model."""

    model: str
    image_size: int
    batch_size: int
    rounds: int
    with_timm: bool


def main() -> None:
    """Measures, prints and writes."""
    with_timm = all(importlib.util.find_spec(name) for name in ("torch", "timm"))
    sizes = (_IMAGE_SIZE.value, _BATCH_SIZE.value, _ROUNDS.value)
    specs = [Spec(name, *sizes, with_timm) for name in _MODELS.value]
    for spec in specs:
        report.create_model(spec)
    console, where = report.start(_OUT.value)
    if not with_timm:
        console.print(
            "PyTorch and timm are not installed: our times alone (pip install torch timm)",
            style="yellow",
        )
    # PyTorch's idle threads else keep the cores busy for a while, from ours and other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    results = []
    for spec in specs:  # each in a process of its own, so that its memory is its own
        results += measuring.measure_on(1, measure, spec)
        _print(console, spec, results[-2:])
    content = {"benchmark": "models", **where, "results": results}
    report.write(_OUT.value, console, content)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """Two results: forward pass and training step, ours against timm's."""
    model = report.create_model(spec)
    variables = _draw_variables(model, spec.image_size)
    batch = _draw_batch(spec)
    calls = {"ours": _ours(model, variables, batch, mesh)}
    if spec.with_timm:
        reference = weights.timm_reference(spec.model, model, channels=3)
        assert reference is not None, f"timm has no {spec.model}"
        name, arguments = reference
        state = weights.timm_state(_flat(variables))
        calls["timm"] = timm_step.prepare(
            name, arguments, state, batch, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
    results = []
    for number, what in enumerate(("forward", "training step")):
        alternatives = {name: pair[number] for name, pair in calls.items()}
        # The logits; the loss of the first step.
        firsts = {name: np.asarray(call()) for name, call in alternatives.items()}
        tolerance = 1e-3 * max(1.0, float(np.abs(firsts["ours"]).max()))
        difference = measuring.require_agreement(spec.model, firsts, tolerance=tolerance)
        for call in alternatives.values():
            call()
        times = measuring.interleave(alternatives, rounds=spec.rounds)
        compared = measuring.compare(times, to=list(calls)[-1])
        results.append(
            dataclasses.asdict(spec)
            | {"what": what, "alternatives": compared, "difference": difference}
        )
    return results


def _draw_variables(model: models.Classifier, image_size: int) -> dict:
    """Random, all of them, so that the comparison of the logits tells; batch norms near 1."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("var", "scale", "gamma_1", "gamma_2"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if name == "kernel" else 2500
        return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, dict(report.abstract_variables(model, image_size)))


def _draw_batch(spec: Spec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shape = (spec.batch_size, spec.image_size, spec.image_size, 3)
    return {
        "image": rng.integers(0, 256, shape, np.uint8),
        "label": rng.integers(0, 1000, shape[:1], np.int32),
    }


def _flat(variables: dict) -> dict[str, Any]:
    return dict(traverse_util.flatten_dict(variables, sep="/"))


def _ours(model, variables: dict, batch: dict, mesh: Mesh) -> tuple[Callable, Callable]:
    """Calls of the forward pass, which gives logits, and of the next step, which gives its loss."""
    images = (jnp.asarray(batch["image"], jnp.float32) / 255 - MEAN[0]) / STD[0]
    apply = jax.jit(model.apply)
    on_device = jax.device_put(variables, parallel.replicated(mesh))
    section = training.default_config().optimizer
    section.weight_decay = WEIGHT_DECAY
    optimizer = optimizers.create_optimizer(section, lambda _: LEARNING_RATE)
    task = training.Classification(model=model, mean=MEAN, std=STD)
    step = training.jit_train_step(training.make_train_step(task, optimizer), mesh)
    batch = parallel.to_devices(batch, parallel.split_batch(mesh))
    key = parallel.random_key(0, mesh)
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    imported = _flat(variables)
    state = jax.jit(
        lambda key: training.init_state(
            task, optimizer, key, one, with_ema=False, imported=imported
        ),
        out_shardings=parallel.replicated(mesh),
    )(jax.random.key(0))

    def advance() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch, key)
        return metrics["loss"]

    return lambda: apply(on_device, images), advance


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    rows = []
    for result in results:
        compared = result["alternatives"]
        milliseconds = [report.milliseconds(times) for times in compared.values()]
        ratios = ["", ""]
        if spec.with_timm:
            ours = compared["ours"]
            ratios = [report.ratio(ours), f"{ours['cpu_ratio']['median']:.2f}"]
        else:
            milliseconds.append("")
        rows.append([result["what"], *milliseconds, *ratios])
    title = (
        f"{results[0]['device_kind']}, {spec.model}, {spec.image_size} px, "
        f"batch {spec.batch_size}, float32, {spec.rounds} rounds\n"
        f"time of this package / time of timm: "
        f"median (quartiles)"
    )
    columns = ["", "ours, ms", "timm, ms", "ratio", "CPU time"]
    console.print(report.table(title, columns, rows))
    if spec.with_timm:
        largest = max(value for result in results for value in result["difference"].values())
        console.print(
            f"before timing, logits and the first loss agreed; largest difference {largest:.2g}"
        )
