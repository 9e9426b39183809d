"""Paired differences between the protocols of each noise and batch size."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.evaluation import Estimate, Hits
from pnoise_jax.studies.leak.checks.orders import CLASS_SORTED, SHUFFLED
from pnoise_jax.studies.leak.measurements import Cell, Measurements
from pnoise_jax.studies.leak.verdict.kinds import Evidence

PROTOCOLS = {"clean": "clean", "noisy, shuffled": SHUFFLED, "noisy, class-sorted": CLASS_SORTED}
COMPARISONS = (  # a protocol and its reference
    ("noisy, shuffled", "clean"),
    ("noisy, class-sorted", "clean"),
    ("noisy, class-sorted", "noisy, shuffled"),
)


def hits_of(measured: Measurements, cell: Cell, name: str) -> Hits:
    """Hits of "clean", or with noise in an order; independent predictions need no batches."""
    if name == "clean":
        return measured.clean_hits
    if name == SHUFFLED:
        return cell.orders[SHUFFLED].hits
    hits = cell.class_sorted.hits
    return dataclasses.replace(hits, batches=None) if cell.dependence.independent else hits


def compare(
    measured: Measurements,
    evidence: Mapping[tuple[str, int], Evidence],
    *,
    level: float,
    confidence: float,
    over_seeds: bool,
) -> list[dict[str, Any]]:
    """Returns the rows of `audit.json`'s comparisons.

    p-values have Holm's correction, for each comparison over all noises and batch sizes. If
    predictions are independent, only their honest effect is estimated, because no order differs.
    """
    paired = {}
    for pair in COMPARISONS:
        rows = [
            _row(measured, cell, *pair, confidence=confidence, over_seeds=over_seeds)
            for cell in measured.cells
        ]
        of_rows = [evidence[row["noise_id"], row["batch_size"]] for row in rows]
        p_values = _corrected(pair, rows, of_rows)
        for row, p_value in zip(rows, p_values, strict=True):
            resolved = _is_resolved(row["interval"], p_value, level)
            corrected = {"p_adjusted": p_value, "resolved": resolved}
            paired[row["noise_id"], row["batch_size"], pair] = row | corrected
    return [paired[*key, pair] for key in evidence for pair in COMPARISONS]


def _row(
    measured: Measurements, cell: Cell, protocol: str, against: str, **options: Any
) -> dict[str, Any]:
    ours, theirs = (hits_of(measured, cell, PROTOCOLS[name]) for name in (protocol, against))
    estimate = evaluation.difference(ours, theirs, **options)
    if cell.dependence.independent and against != "clean":
        estimate = Estimate(0.0, (0.0, 0.0))  # proven, not estimated
    return {
        "noise_id": cell.noise.name,
        "batch_size": cell.batch_size,
        "of": protocol,
        "against": against,
        "difference": estimate.value,
        "interval": list(estimate.interval),
        "p_value": estimate.p_value,
        "difference_by_seed": (ours.by_seed - theirs.by_seed).tolist(),
    }


def _corrected(
    pair: tuple[str, str], rows: list[dict[str, Any]], evidence: list[Evidence]
) -> list[float | None]:
    """Returns the p-values of one comparison; None if the difference is proven."""
    if pair == COMPARISONS[0]:
        return [each.p_honest for each in evidence]  # as in the verdicts
    tested = [i for i, each in enumerate(evidence) if not each.dependence.independent]
    adjusted = evaluation.adjust_p_values([rows[i]["p_value"] for i in tested])
    by_row = dict(zip(tested, np.asarray(adjusted).tolist(), strict=True))
    against_clean = pair[1] == "clean"
    return [
        by_row.get(i, each.p_honest if against_clean else None) for i, each in enumerate(evidence)
    ]


def _is_resolved(interval: list[float], p_value: float | None, level: float) -> bool:
    low, high = interval
    return p_value is not None and p_value <= level and not low <= 0 <= high
