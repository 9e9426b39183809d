"""Makes the content of `audit.json` from the measurements: rows, comparisons, verdicts."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.evaluation import Hits
from pnoise_jax.studies.leak.checks.orders import CLASS_PERMUTED, CLASS_SORTED, KINDS, SHUFFLED
from pnoise_jax.studies.leak.measurements import Cell, Composition, Measurements
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.verdict import wording
from pnoise_jax.studies.leak.verdict.comparisons import compare, hits_of
from pnoise_jax.studies.leak.verdict.evidence import gather
from pnoise_jax.studies.leak.verdict.kinds import Verdict, judge
from pnoise_jax.studies.leak.verdict.rows import (
    as_json,
    describe_composition,
    describe_interventions,
    score,
)
from pnoise_jax.studies.reporting.report import VERSION

UNITS = {
    "top1": "percent",
    "top5": "percent",
    "balanced": "percent, the mean accuracy per class",
    "printed": "percent, the published program's mean over batches of the running accuracy",
    "nll": "nats, mean",
    "difference": "points of top-1",
    "purity": "mean share of an example's batch mates that have its label",
    "label_bits_per_batch": "bits, an estimate",
    "called": "percent of batches in which the target was called the class of its mates",
}


class Summary:
    """Statistics of an audit's measurements; numbers are rounded only when they are shown."""

    def __init__(
        self,
        measured: Measurements,
        settings: AuditSettings,
        class_names: Sequence[str] | None = None,
    ):
        self._measured, self._settings = measured, settings
        self._class_names = class_names
        self._options = {
            "confidence": settings.confidence,
            "over_seeds": settings.over_seeds(len(measured.seeds)),
        }
        self._evidence = gather(measured, settings)
        self.verdicts = {
            noise_id: self._verdict(noise_id)
            for noise_id in dict.fromkeys(cell.noise.name for cell in measured.cells)
        }

    @property
    def verdict(self) -> Verdict:
        """The verdict on the first noise, which the audit is about."""
        return next(iter(self.verdicts.values()))

    def to_dict(self) -> dict[str, Any]:
        """Returns the parts of `audit.json` that come from measurements."""
        settings, measured = self._settings, self._measured
        first = measured.cells[0].noise.name
        headline = measured.cell(first, self.verdict.batch_size)
        return {
            "version": VERSION,
            "verdict": self.verdict.to_dict(),
            "findings": [self._finding(noise_id) for noise_id in self.verdicts],
            "rows": [*self._clean_rows(), *self._noisy_rows()],
            "comparisons": compare(measured, self._evidence, level=settings.level, **self._options),
            "orders": [row for cell in measured.cells for row in self._orders(cell)],
            "dependence": [
                {"noise_id": cell.noise.name, "batch_size": cell.batch_size}
                | dataclasses.asdict(cell.dependence)
                | {
                    "independent": cell.dependence.independent,
                    "no_interventions": cell.no_interventions,
                }
                for cell in measured.cells
            ],
            "interventions": [
                row for cell in measured.cells for row in describe_interventions(cell)
            ],
            "purity": [
                self._purity(cell, composition)
                for cell in measured.cells
                for composition in cell.sweep
            ],
            "per_class": self._per_class(headline),
            "metric": self._metric(headline),
            "headline": {"noise_id": first, "batch_size": headline.batch_size},
            "clean_check": self._clean_check(),
            "confidence": settings.confidence,
            "equivalence": settings.equivalence,
            "shuffled_orders": settings.orders,
            "resamples": settings.enough_resamples,
            "interval_over": "seeds and examples" if self._options["over_seeds"] else "examples",
            "seeds": list(measured.seeds),
            "num_classes": measured.num_classes,
            "n": len(measured.labels),
            "seconds": measured.seconds,
            "units": UNITS,
        }

    def _verdict(self, noise_id: str) -> Verdict:
        """Returns the verdict on a noise at the first batch size where it is most serious."""
        bounds = {"level": self._settings.level, "equivalence": self._settings.equivalence}
        by_size = {size: e for (name, size), e in self._evidence.items() if name == noise_id}
        independent = [size for size, e in by_size.items() if e.dependence.independent]
        judged = []
        for size, evidence in by_size.items():
            kinds = judge(evidence, **bounds) or ("undecided",)
            text = wording.text(evidence, kinds, **bounds, independent_at=independent)
            text += wording.metric(self._metric(self._measured.cell(noise_id, size)))
            judged.append(Verdict(kinds, text, as_json(evidence), size))
        return min(judged, key=lambda verdict: verdict.seriousness)

    def _finding(self, noise_id: str) -> dict[str, Any]:
        verdict = self.verdicts[noise_id]
        noise = self._measured.cell(noise_id, verdict.batch_size).noise
        return {
            "noise_id": noise_id,
            "quality": noise.quality,
            "strength": noise.strength,
            "where": noise.where,
            "batch_size": verdict.batch_size,
            "verdict": verdict.to_dict(),
        }

    def _clean_check(self) -> dict[str, float | int] | None:
        if self._measured.clean_change is None:
            return None
        largest, examples = self._measured.clean_change
        return {"largest_logit_difference": largest, "examples": examples}

    def _clean_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each batch size and order; the clean predictions do not differ."""
        measured = self._measured
        labels = measured.labels
        uncertain = self._uncertain(measured.clean_hits)
        rows = []
        for size, order in itertools.product(self._settings.sizes, evaluation.ORDERS):
            cell = measured.cell(measured.cells[0].noise.name, size)
            composition = cell.shuffled if order == SHUFFLED else cell.class_sorted
            protocol = {"noise": False, "noise_id": None, "quality": None, "strength": None}
            protocol |= {"where": None, "order": order, "batch_size": size}
            scored = score(measured.clean, labels, composition)
            rows.append(protocol | scored | uncertain | describe_composition(composition, measured))
        return rows

    def _noisy_rows(self) -> list[dict[str, Any]]:
        cells = self._measured.cells
        return [self._row(cell, order) for cell in cells for order in evaluation.ORDERS]

    def _row(self, cell: Cell, order: str) -> dict[str, Any]:
        scores = cell.orders[order]
        names = ("top1", "top5", "nll", "balanced", "printed", "printed_top5")
        composition = cell.shuffled if order == SHUFFLED else cell.class_sorted
        return {
            "noise": True,
            "noise_id": cell.noise.name,
            "quality": cell.noise.quality,
            "strength": cell.noise.strength,
            "where": cell.noise.where,
            "order": order,
            "batch_size": cell.batch_size,
            **{name: float(getattr(scores, name).mean()) for name in names},
            "n": len(self._measured.labels),
            **self._uncertain(hits_of(self._measured, cell, order)),
            **describe_composition(composition, self._measured),
        }

    def _purity(self, cell: Cell, composition: Composition) -> dict[str, Any]:
        return {
            "noise_id": cell.noise.name,
            "batch_size": cell.batch_size,
            "mixed_share": composition.mixed_share,
            **score(composition.predictions, self._measured.labels, composition),
            **self._uncertain(composition.hits),
            **describe_composition(composition, self._measured),
        }

    def _uncertain(self, hits: Hits) -> dict[str, Any]:
        return {
            "seeds": list(self._measured.seeds),
            "top1_by_seed": hits.by_seed.tolist(),
            "interval": list(evaluation.accuracy(hits, **self._options).interval),
        }

    def _orders(self, cell: Cell) -> list[dict[str, Any]]:
        """Returns accuracies by kind of order, mean over seeds, and ranks among random orders."""
        shuffled = cell.orders[SHUFFLED].by_order
        rows = []
        for kind, scores in cell.orders.items():
            by_order = scores.by_order
            rows.append(
                {
                    "noise_id": cell.noise.name,
                    "batch_size": cell.batch_size,
                    "order": kind,
                    "words": KINDS[kind],
                    "orders": len(by_order),
                    "top1": float(by_order.mean()),
                    "deviation": float(by_order.std(ddof=1)) if len(by_order) > 1 else None,
                    "lowest": float(by_order.min()),
                    "highest": float(by_order.max()),
                    "random_orders_below": int(np.sum(shuffled < by_order.mean() - 1e-9)),
                    "top1_by_order": by_order.tolist(),
                }
            )
        return rows

    def _metric(self, cell: Cell) -> dict[str, Any] | None:
        """Returns the user's metric by protocol, and whether it depends on the batching."""
        metric = self._measured.metric
        if metric is None:
            return None
        fixed = cell.orders[SHUFFLED].metric_of_fixed.mean(axis=0)
        by_class = cell.orders[CLASS_PERMUTED].metric_of_fixed.mean(axis=0)
        both = np.concatenate([fixed, by_class])
        return {
            "name": getattr(metric, "__name__", str(metric)),
            "shuffled": float(cell.orders[SHUFFLED].metric.mean()),
            "class_sorted": float(cell.orders[CLASS_SORTED].metric.mean()),
            "of_fixed_predictions": {"shuffled": fixed.tolist(), "class_sorted": by_class.tolist()},
            "depends_on_batching": bool(np.ptp(both) > 1e-9 * max(1.0, np.abs(both).max())),
            "range_of_fixed_predictions": [float(both.min()), float(both.max())],
        }

    def _per_class(self, cell: Cell) -> list[dict[str, Any]]:
        labels = self._measured.labels
        counts = np.bincount(labels)
        names = {"clean": "clean", "shuffled": SHUFFLED, "class_sorted": CLASS_SORTED}
        accuracies = {}
        for column, name in names.items():
            correct = hits_of(self._measured, cell, name).correct.mean(axis=0)
            accuracies[column] = 100 * np.bincount(labels, weights=correct) / np.maximum(counts, 1)
        return [
            {"class": c, "name": self._class_name(c), "n": int(counts[c])}
            | {column: float(values[c]) for column, values in accuracies.items()}
            for c in np.flatnonzero(counts).tolist()
        ]

    def _class_name(self, c: int) -> str:
        return str(c) if self._class_names is None else str(self._class_names[c])
