"""Speed of a training step with noise: python -m launch.benchmark step [--flags]

Measured: seconds of wall clock of one compiled training step, state donated, as the training loop
runs it, on a batch that is already on the devices: the model with injection=None ("plain"), and for
each preset with its noise at the last layer in training, structured and as a matmul.

Printed: how many times as long it takes as the plain step of the same round, its median and
quartiles; and the median of the same for CPU time, which other programs disturb less.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import noise, parallel, training
from pnoise_jax.training import optimizer as optimizers

from . import measuring, report

flags.DEFINE_string("model", "vit_ti_16", "One of models.list_models().")
flags.DEFINE_integer("image_size", 224, "Side of an image, pixels.", lower_bound=1)
flags.DEFINE_integer("batch_size", 16, "Over all devices.", lower_bound=2)
flags.DEFINE_integer("depth", None, "Blocks of a ViT, if not the model's.", lower_bound=1)
_PRESETS = flags.DEFINE_list("preset", ["paper_vit", "optimal_published"], "Of noise.PRESETS.")
_DEVICES = flags.DEFINE_list("devices", ["1"], "Numbers of devices to spread the batch over.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the computation.")
flags.DEFINE_integer("rounds", 12, "Steps of each alternative.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the flags, checked."""

    model: str
    image_size: int
    batch_size: int
    depth: int | None
    presets: tuple[str, ...]
    dtype: str
    rounds: int


def main() -> None:
    """Measures, prints and writes."""
    devices = report.whole_numbers("devices", _DEVICES.value, minimum=1)
    if not _PRESETS.value:
        raise ValueError(f"--preset is empty: use one of {', '.join(noise.PRESETS)}")
    for preset in _PRESETS.value:
        report.require_preset(preset)
    spec = report.spec_of(Spec, presets=tuple(_PRESETS.value))
    for injection in injections(spec).values():
        _create_model(spec, injection)
    report.require_divisible("batch_size", [spec.batch_size], devices)
    report.run("step", spec, measure, _print, devices=devices, out=_OUT.value)


def injections(spec: Spec) -> dict[str, noise.Injection | None]:
    """What is compared, "plain" first; the presets with training noise on, at the last layer."""
    compared: dict[str, noise.Injection | None] = {"plain": None}
    for preset in spec.presets:
        for implementation in ("structured", "matmul"):
            section = {"preset": preset, "implementation": implementation}
            section |= {"train": True, "layer": "last"}
            compared[f"{preset}/{implementation}"] = noise.Injection.from_config(section)
    return compared


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """One result: every alternative against the plain step."""
    state, batch = _create(spec, mesh)
    calls, first_steps = {}, {}
    for name, injection in injections(spec).items():
        calls[name], first_steps[name] = _start(spec, injection, mesh, state, batch)
    tolerance = 1e-3 if spec.dtype == "float32" else 0.1  # of a loss near 7 and a gradient near 1
    differences = {}
    for preset in spec.presets:
        pair = {name: first_steps[name] for name in first_steps if name.startswith(f"{preset}/")}
        differences |= measuring.require_agreement(preset, pair, tolerance=tolerance)
    times = measuring.interleave(calls, rounds=spec.rounds)
    metrics = {name: {k: float(v) for k, v in step.items()} for name, step in first_steps.items()}
    compared = measuring.compare(times, to="plain")
    return [{"alternatives": compared, "difference": differences, "first_step": metrics}]


def _create_model(spec: Spec, injection: noise.Injection | None):
    return report.create_model(spec, injection=injection, dtype=spec.dtype)


def _optimizer() -> optax.GradientTransformation:
    """The default config's, at a constant rate."""
    return optimizers.create_optimizer(training.default_config().optimizer, lambda _: 1e-4)


def _create(spec: Spec, mesh: Mesh) -> tuple[training.TrainState, dict[str, jax.Array]]:
    """The state before the first step, and the batch of all steps."""
    task = training.Classification(model=_create_model(spec, None))
    images = jax.ShapeDtypeStruct((1, spec.image_size, spec.image_size, 3), jnp.float32)

    def create(key):
        return training.init_state(task, _optimizer(), key, images, with_ema=False)

    state = jax.jit(create, out_shardings=parallel.replicated(mesh))(jax.random.key(0))
    draw = jax.jit(_draw, static_argnums=0, out_shardings=parallel.split_batch(mesh))
    return state, draw(spec)


def _start(
    spec: Spec,
    injection: noise.Injection | None,
    mesh: Mesh,
    state: training.TrainState,
    batch: dict[str, jax.Array],
) -> tuple[Callable, dict[str, jax.Array]]:
    """Compiles the step and makes the first two on a copy of the state.

    Returns:
      A call that makes the next step, and the metrics of the first: loss, top1 (percent) and
      grad_norm.
    """
    task = training.Classification(model=_create_model(spec, injection))
    step = training.jit_train_step(training.make_train_step(task, _optimizer()), mesh)
    key = parallel.random_key(0, mesh)
    state = jax.tree.map(jnp.copy, state)

    def advance():
        nonlocal state
        state, metrics = step(state, batch, key)
        return state, metrics

    _, first = advance()
    jax.block_until_ready(advance())
    return advance, first


def _draw(spec: Spec) -> dict[str, jax.Array]:
    """A batch of random images and labels."""
    image_key, label_key = jax.random.split(jax.random.key(1))
    shape = (spec.batch_size, spec.image_size, spec.image_size, 3)
    return {
        "image": jax.random.bits(image_key, shape, "uint8"),
        "label": jax.random.randint(label_key, shape[:1], 0, 1000),
    }


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    (result,) = results
    devices, kind = result["devices"], result["device_kind"]
    alternatives = result["alternatives"]
    rows = [["plain", report.milliseconds(alternatives["plain"]), "", ""]]
    for name, times in alternatives.items():
        if name != "plain":
            cpu_ratio = f"{times['cpu_ratio']['median']:.3f}"
            ratio = report.ratio(times, decimals=3)
            rows.append([name, report.milliseconds(times), ratio, cpu_ratio])
    title = (
        f"{devices} x {kind}, training step of {spec.model}, {spec.image_size} px, "
        f"batch {spec.batch_size}, {spec.dtype}, {spec.rounds} rounds\n"
        "time / time of the plain step: median (quartiles)"
    )
    console.print(report.table(title, ["injection", "ms", "ratio", "CPU time"], rows))
    largest = max(result["difference"].values())
    console.print(
        "before timing, structured and matmul agreed in loss and gradient norm; "
        f"largest difference {largest:.2g}"
    )
