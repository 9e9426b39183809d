"""Speed of a training step with noise: pnoise benchmark step [--flags]

Measured: the wall-clock seconds of one training step, compiled and with its state donated as in the
training loop, on a batch that is already on the devices. The model has no injection ("plain"), or
the noise of a preset at its last layer, structured and as a matmul, or noise at one of --sites:
image (Gaussian, on pixels), weights (Gaussian, on all kernels), fgsm, and pgd with 3 steps. The
site denoising is a step of the denoising task with its default decoder, and "denoising/encoder" is
the same step without the decoder: the encoder's map alone, forward and backward. Each of --noises
is measured at the last layer and at every layer.

Printed: each step's time divided by the plain step's time in the same round, as median and
quartiles; the median of the same ratio for CPU time, which other programs affect less; the goal;
and the memory for intermediate values, according to the compiler.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import data, noise, parallel, training
from pnoise_jax.denoising import Denoising
from pnoise_jax.robustness import RobustClassification

from ..main import whole_numbers
from . import measuring, report, workload

_PGD_STEPS = 3
# Upper bounds of the ratios.
GOALS = {"image": 1.02, "weights": 1.03, "fgsm": 2.2, "pgd": _PGD_STEPS + 1.3}
SITES = (*GOALS, "denoising")

flags.DEFINE_string("model", "vit_ti_16", "The model; see models.list_models().")
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=1)
flags.DEFINE_integer("batch_size", 16, "Examples per step, over all devices.", lower_bound=2)
flags.DEFINE_integer(
    "depth", None, "Number of blocks of a ViT; by default the model's.", lower_bound=1
)
_PRESETS = flags.DEFINE_list(
    "preset", ["paper_vit", "optimal_published"], "Names of noise.PRESETS."
)
_SITES = flags.DEFINE_list("sites", list(SITES), "Sites of noise outside the latent to compare.")
NOISES: dict[str, noise.Noise] = {
    "cyclic_shift": noise.LinearTransform(noise.CyclicShift(0.3)),
    "optimal": noise.LinearTransform(noise.Optimal()),
    "gaussian": noise.Gaussian(std=0.1),
    "salt_and_pepper": noise.SaltAndPepper(0.05),
}
# Upper bounds of the ratios; drawn noise has no goal at the last layer.
_PLACES = {"last": 1.01, "every": 1.03}
_NOISES = flags.DEFINE_list("noises", [], f"Noises to compare, of {', '.join(NOISES)}.")
_DEVICES = flags.DEFINE_list("devices", ["1"], "Numbers of devices that share the batch.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype of the computation.")
flags.DEFINE_integer(
    "steps",
    None,
    "Number of steps in a row to time at once; default: 5 on a GPU, otherwise 1.",
    lower_bound=1,
)
flags.DEFINE_integer("rounds", 12, "Number of timings of each alternative.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    model: str
    image_size: int
    batch_size: int
    depth: int | None
    presets: tuple[str, ...]
    sites: tuple[str, ...]
    noises: tuple[str, ...]
    dtype: str
    steps: int | None
    rounds: int


def main() -> None:
    """Measures, and prints and writes the results."""
    measuring.keep_accelerators_free()
    devices = whole_numbers("devices", _DEVICES.value, minimum=1)
    if not _PRESETS.value and not _NOISES.value:
        raise ValueError(
            f"--preset and --noises are empty: use some of {', '.join(noise.PRESETS)}, or of "
            + ", ".join(NOISES)
        )
    for name in _NOISES.value:
        report.require_known("noises", name, NOISES)
    for preset in _PRESETS.value:
        report.require_preset(preset)
    for site in _SITES.value:
        report.require_known("sites", site, SITES)
    lists = {"presets": _PRESETS, "sites": _SITES, "noises": _NOISES}
    spec = report.spec_of(Spec, **{name: tuple(flag.value) for name, flag in lists.items()})
    for injection in injections(spec).values():
        _create_model(spec, injection)
    report.require_divisible("batch_size", [spec.batch_size], devices)
    report.run("step", [spec], measure, _print, devices=devices, out=_OUT.value)


def injections(spec: Spec) -> dict[str, noise.Injection | None]:
    """The injections to compare: "plain", then each preset, and each noise at two places.

    Presets are at the last layer, structured and as a matmul.
    """
    compared: dict[str, noise.Injection | None] = {"plain": None}
    for preset in spec.presets:
        for implementation in ("structured", "matmul"):
            section = {"preset": preset, "implementation": implementation}
            section |= {"train": True, "layer": "last"}
            compared[f"{preset}/{implementation}"] = noise.Injection.from_config(section)
    if spec.noises:
        layers = {
            "last": "last",
            "every": tuple(range(1, _create_model(spec, None).num_layers + 1)),
        }
        for name, place in itertools.product(spec.noises, _PLACES):
            compared[f"{name}, {place}"] = noise.Injection(NOISES[name], layer=layers[place])
    return compared


def tasks(spec: Spec) -> dict[str, training.Task]:
    """All alternatives: one task for each of `injections` and each site."""
    compared: dict[str, training.Task] = {
        name: training.Classification(model=_create_model(spec, injection))
        for name, injection in injections(spec).items()
    }
    plain = _create_model(spec, None)
    gaussian = noise.Gaussian(std=0.1)
    injection = noise.Injection(gaussian, point="image", pixels=noise.PixelScale())
    on_images = _create_model(spec, injection)
    options = {
        "weights": {"weight_noise_std": 0.01},
        "fgsm": {"attack": "fgsm"},
        "pgd": {"attack": "pgd", "attack_steps": _PGD_STEPS},
    }
    for site in spec.sites:
        if site == "image":
            compared[site] = training.Classification(model=on_images)
        elif site == "denoising":
            compared[f"{site}/encoder"] = _EncoderAlone(model=on_images)
            compared[site] = Denoising(model=Denoising.prepare_model(on_images))
        else:
            compared[site] = RobustClassification(model=plain, **options[site])
    return compared


class _EncoderAlone(training.Task):
    """A denoising step without its decoder."""

    def loss(
        self,
        params: Any,
        state: training.State,
        batch: data.Batch,
        context: training.StepContext,
    ) -> tuple[jax.Array, tuple[training.State, training.Metrics]]:
        """The mean square of the map of each image, so that all of it has a gradient."""
        x, updated = self.model.apply(
            {"params": params, "batch_stats": state["batch_stats"]},
            self.normalise(batch["image"]),
            end="map",
            train=True,
            method="forward",
            mutable=["batch_stats"],
            rngs={"noise": context.keys["noise"], "dropout": context.keys["dropout"]},
        )
        state = {**state, "batch_stats": updated.get("batch_stats", {})}
        return jnp.square(x).mean(), (state, {})


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """One result: every alternative against the plain step."""
    advances = _prepare(spec, mesh)
    return _time(spec, advances)


def _prepare(spec: Spec, mesh: Mesh) -> dict[str, workload.Advance]:
    """The compiled steps, the plain one first."""
    batch = parallel.to_devices(workload.draw_batch(spec), parallel.split_batch(mesh))
    alternatives = tasks(spec)
    state = workload.create_state(alternatives["plain"], spec.image_size, mesh)

    def prepare(task: training.Task) -> workload.Advance:
        start = state
        if isinstance(task, Denoising):  # it has other parameters
            start = workload.create_state(task, spec.image_size, mesh)
        return workload.make_advance(task, start, batch, mesh)

    return {name: prepare(task) for name, task in alternatives.items()}


def _time(spec: Spec, advances: dict[str, workload.Advance]) -> list[dict]:
    first_steps = {}
    for name, advance in advances.items():
        _, first_steps[name] = advance()
        jax.block_until_ready(advance())
    steps = spec.steps or measuring.in_a_row(5)
    calls = {name: functools.partial(advance, steps) for name, advance in advances.items()}
    differences = {}
    for preset in spec.presets:
        pair = {name: first_steps[name] for name in first_steps if name.startswith(f"{preset}/")}
        differences |= measuring.require_same_step(preset, pair, dtype=spec.dtype)
    times = measuring.interleave(calls, rounds=spec.rounds, per_call=steps)
    metrics = {name: {k: float(v) for k, v in step.items()} for name, step in first_steps.items()}
    compared = measuring.compare(times, to="plain")
    return [
        {
            "alternatives": compared,
            "difference": differences,
            "first_step": metrics,
            "memory": {name: advance.memory for name, advance in advances.items()},
            "goals": _goals(advances),
        }
    ]


def _goals(names: Iterable[str]) -> dict[str, float]:
    """The upper bound of each alternative's ratio, if it has a goal."""
    goals = dict(GOALS)
    for name in names:
        drawn, place = name.rpartition(", ")[::2]
        if place == "every" or (place == "last" and not NOISES[drawn].draws):
            goals[name] = _PLACES[place]
    return goals


def _create_model(spec: Spec, injection: noise.Injection | None):
    return workload.create_model(spec, injection=injection, dtype=spec.dtype)


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    (result,) = results
    devices, kind = result["devices"], result["device_kind"]
    alternatives = result["alternatives"]
    rows = []
    for name, times in alternatives.items():
        row = [name, report.milliseconds(times), "", "", ""]
        if name != "plain":
            goals = result["goals"]
            goal = f"≤ {goals[name]:g}" if name in goals else ""
            row[2:] = report.ratio(times, decimals=3), f"{times['cpu_ratio']['median']:.3f}", goal
        rows.append([*row, report.figure(result["memory"][name] / 2**20)])
    title = (
        f"{devices} x {kind}, training step of {spec.model}, {spec.image_size} px, "
        f"batch {spec.batch_size}, {spec.dtype}, {spec.rounds} rounds\n"
        "time / time of the plain step: median (quartiles)"
    )
    console.print(report.table(title, ["noise", "ms", "ratio", "CPU time", "goal", "MiB"], rows))
    report.say_agreement(console, "loss and gradient norm of structured and matmul", results)
