"""Parts of the rows of `audit.json`."""

import dataclasses
from typing import Any

import numpy as np

from pnoise_jax.evaluation import Predictions, is_correct, metrics
from pnoise_jax.studies.leak.checks.interventions import TARGETS
from pnoise_jax.studies.leak.measurements import Cell, Composition, Measurements
from pnoise_jax.studies.leak.verdict.kinds import Evidence


def score(
    predictions: tuple[Predictions, ...], labels: np.ndarray, composition: Composition
) -> dict[str, float | int]:
    """Returns the summary of `Predictions` and further metrics of a batching, mean over seeds."""
    order = np.argsort(composition.batches, kind="stable")
    size = int(np.bincount(composition.batches).max())
    rows = [
        predicted.summary()
        | {
            "balanced": metrics.balanced_accuracy(labels, predicted.rank < 1),
            "printed": metrics.mean_of_running((predicted.rank < 1)[order], size),
            "printed_top5": metrics.mean_of_running((predicted.rank < 5)[order], size),
        }
        for predicted in predictions
    ]
    means = {k: float(np.mean([row[k] for row in rows])) for k in rows[0] if k != "n"}
    return means | {"n": rows[0]["n"]}


def describe_composition(
    composition: Composition, measured: Measurements
) -> dict[str, float | None]:
    correct = is_correct(composition.votes, measured.labels, measured.label_sets)
    return {
        "purity": composition.purity,
        "label_bits_per_batch": composition.label_bits,
        "batch_vote_top1": 100 * float(correct.mean()),
    }


def describe_interventions(cell: Cell) -> list[dict[str, Any]]:
    """Returns one row per kind of target; none if interventions could not be made."""
    outcome = cell.interventions
    if outcome is None:
        return []
    return [
        {
            "noise_id": cell.noise.name,
            "batch_size": cell.batch_size,
            "target": kind,
            "words": TARGETS[kind],
            "mates": outcome.mates,
            "pairs": outcome.pairs,
            **dataclasses.asdict(pull),
        }
        for kind, pull in outcome.pulls.items()
    ]


def as_json(evidence: Evidence) -> dict[str, Any]:
    """Returns evidence as nested dicts of plain values."""
    fields = dataclasses.asdict(evidence)
    fields["dependence"]["independent"] = evidence.dependence.independent
    return fields
