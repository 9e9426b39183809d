"""The cost of an audit: pnoise benchmark audit [--flags]

Measured: the wall-clock seconds of evaluating a compiled model on random images,

  clean       once, without noise
  audit       in an audit without its purity sweep: all orders of all batch sizes, the checks of
              batches and the interventions. The layers before the noise run once per image
  separately  without noise and in all orders of the audit, each time from the image on; this is
              measured in one round

Printed: each time divided by the time of the clean evaluation in the same round, as median and
quartiles.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import data, evaluation, noise, parallel
from pnoise_jax.studies import leak
from pnoise_jax.studies.leak import SHUFFLED, Orders

from ..main import whole_numbers
from . import measuring, report, workload

flags.DEFINE_string("model", "vit_ti_16", "The model; see models.list_models().")
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=1)
flags.DEFINE_integer("examples", 320, "Number of images, of 5 classes.", lower_bound=8)
flags.DEFINE_integer(
    "depth", None, "Number of blocks of a ViT; by default the model's.", lower_bound=1
)
flags.DEFINE_string("preset", "optimal_all_tokens", "One of noise.PRESETS.")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["16"], "Batch sizes of the protocols.")
flags.DEFINE_integer(
    "orders", 40, "Number of random orders; orders of other kinds are added.", lower_bound=20
)
flags.DEFINE_integer("rounds", 3, "Number of calls of each alternative.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

_PIXELS = workload.PIXELS


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    model: str
    image_size: int
    examples: int
    depth: int | None
    preset: str
    batch_sizes: tuple[int, ...]
    orders: int
    rounds: int


def main() -> None:
    """Measures, and prints and writes the results."""
    batch_sizes = whole_numbers("batch_sizes", _BATCH_SIZES.value, minimum=2)
    spec = report.spec_of(Spec, batch_sizes=batch_sizes)
    report.require_preset(spec.preset)
    _create_model(spec)
    try:
        labels = workload.audited_labels(spec.examples)
        _settings(spec).for_labels(labels, f"--examples={spec.examples}")
    except ValueError as error:
        raise ValueError(f"--batch_sizes={','.join(_BATCH_SIZES.value)}: {error}") from None
    report.run("audit", [spec], measure, _print, out=_OUT.value)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """One result: an audit against a clean evaluation."""
    model = _create_model(spec)
    images = jnp.zeros((1, spec.image_size, spec.image_size, 3))
    create = jax.jit(model.init, out_shardings=parallel.replicated(mesh))
    variables = create(jax.random.key(0), images)
    dataset = workload.audited_dataset(spec.examples, spec.image_size)
    calls = _alternatives(spec, model, variables, dataset, mesh)
    accuracies = {name: call() for name, call in calls.items()}
    pair = {name: accuracies[name] for name in ("audit", "separately")}
    differing = measuring.require_agreement("accuracies", pair, tolerance=0.02)
    times = measuring.interleave(calls, rounds=spec.rounds, budgets={"separately": 0})
    compared = measuring.compare(times, to="clean")
    orders = sum(map(len, _orders(spec, dataset.labels, dataset.labels).values()))
    return [
        {
            "orders": orders * len(spec.batch_sizes),
            "alternatives": compared,
            "difference": differing,
        }
    ]


def _alternatives(
    spec: Spec, model, variables, dataset: data.Dataset, mesh: Mesh
) -> dict[str, Callable[[], object]]:
    """Functions without arguments; those with noise return accuracies, which must agree."""

    def clean():
        protocol = evaluation.Protocol(noise=False, order="shuffled", batch_size=10)
        evaluation.predict(model, variables, dataset, protocol, mesh=mesh, **_PIXELS)

    def run_audit():
        measured = workload.run_audit(model, variables, dataset, _settings(spec), mesh)
        return np.concatenate([cell.orders[SHUFFLED].top1[0] for cell in measured.cells])

    def separately():
        clean()
        accuracies = {}
        for size in spec.batch_sizes:
            protocol = evaluation.Protocol(True, "shuffled", size)
            predicted = np.zeros(len(dataset), np.int32)  # only the number of orders matters
            for kind, orders in _orders(spec, dataset.labels, predicted).items():
                accuracies[size, kind] = [
                    evaluation.predict(
                        model, variables, dataset, protocol, order=order, mesh=mesh, **_PIXELS
                    ).summary()["top1"]
                    for order in orders
                ]
        return np.concatenate([accuracies[size, SHUFFLED] for size in spec.batch_sizes])

    return {"clean": clean, "audit": run_audit, "separately": separately}


def _orders(spec: Spec, labels: np.ndarray, predicted: np.ndarray) -> dict[str, list[np.ndarray]]:
    """The orders of the audit, by kind."""
    settings = _settings(spec)
    return Orders.of(labels, settings).with_predictions(predicted, settings)


def _create_model(spec: Spec):
    injection = noise.Injection.preset(spec.preset)
    return workload.create_model(spec, num_classes=workload.AUDITED_CLASSES, injection=injection)


def _settings(spec: Spec) -> leak.AuditSettings:
    return leak.AuditSettings(batch_sizes=spec.batch_sizes, orders=spec.orders, purity_steps=0)


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    (result,) = results
    alternatives = result["alternatives"]
    rows = [
        [
            name,
            report.figure(times["seconds"]["median"]),
            report.ratio(times) if "ratio" in times else "",
        ]
        for name, times in alternatives.items()
    ]
    title = (
        f"{result['device_kind']}, {spec.model} {spec.image_size} px\n"
        f"{spec.examples} images, {result['orders']} orders, {spec.rounds} rounds\n"
        "ratio: to one clean evaluation"
    )
    console.print(report.table(title, ["what", "seconds", "ratio: median (quartiles)"], rows))
