"""From what was measured to what `audit.json` says: rows, comparisons, findings."""

import functools
import itertools
from typing import Any

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.evaluation import Estimate, Hits, Predictions
from pnoise_jax.studies.leak import verdict
from pnoise_jax.studies.leak.measure import Cell, Measurements
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.subjects import AuditedNoise
from pnoise_jax.studies.report import VERSION

COMPARISONS = (  # name of each, and of its reference
    ("noisy, shuffled", "clean"),
    ("noisy, class-sorted", "clean"),
    ("noisy, class-sorted", "noisy, shuffled"),
)


class Summary:
    """Statistics of an audit's measurements; numbers are rounded only where they are shown."""

    def __init__(self, measured: Measurements, settings: AuditSettings):
        self._measured = measured
        self._settings = settings
        self._noises = list({cell.noise.name: cell.noise for cell in measured.grid}.values())
        options = {
            "confidence": settings.confidence,
            "resamples": settings.resamples,
            "seed": settings.seed,
        }
        if not settings.over_seeds(len(measured.seeds)):
            options["over_seeds"] = False
        self._accuracy = functools.partial(evaluation.accuracy, **options)
        self._difference = functools.partial(evaluation.difference, **options)

    def to_dict(self) -> dict[str, Any]:
        """The parts of `audit.json` that come from measurements."""
        settings, measured = self._settings, self._measured
        batch_size = settings.batch_sizes[0]
        comparisons = [
            self._comparison(noise, size, of, against)
            for noise, size in itertools.product(self._noises, settings.batch_sizes)
            for of, against in COMPARISONS
        ]
        over = "seeds and batches" if settings.over_seeds(len(measured.seeds)) else "batches"
        findings = [self._finding(noise, comparisons) for noise in self._noises]
        return {
            "version": VERSION,
            "verdict": findings[0]["sentence"],
            "findings": findings,
            "rows": [*self._clean_rows(), *map(self._row, measured.grid)],
            "comparisons": comparisons,
            "purity": [self._purity(cell) for cell in measured.sweep],
            "per_class": self._per_class(self._noises[0], batch_size),
            "headline": {"noise_id": self._noises[0].name, "batch_size": batch_size},
            "clean_check": self._clean_check(),
            "confidence": settings.confidence,
            "resamples": settings.resamples,
            "interval_over": over,
            "seeds": list(measured.seeds),
            "num_classes": measured.num_classes,
            "n": len(measured.labels),
            "seconds": measured.seconds,
            "units": {
                "top1": "percent",
                "top5": "percent",
                "nll": "nats, mean",
                "difference": "points of top-1",
                "agreement": "percent of predictions",
                "purity": "mean share of an example's batch mates that have its label",
                "label_bits_per_batch": "bits, an estimate",
            },
        }

    def _clean_check(self) -> dict[str, float | int] | None:
        if self._measured.largest_change is None:
            return None
        largest, examples = self._measured.largest_change
        return {"largest_logit_difference": largest, "examples": examples}

    def _clean_rows(self) -> list[dict[str, Any]]:
        """Clean predictions depend neither on order nor on batch: measured once, checked."""
        scores, uncertain = (
            _scores(self._measured.clean),
            self._uncertain(self._measured.clean_hits),
        )
        rows = []
        for size, order in itertools.product(self._settings.batch_sizes, evaluation.ORDERS):
            protocol = {"noise": False, "noise_id": None, "quality": None, "strength": None}
            protocol |= {"where": None, "order": order, "batch_size": size}
            composed = _composition(self._measured.cell(self._noises[0], order, size))
            vote = {"batch_vote_top1": None, "agreement": None}
            rows.append(protocol | scores | uncertain | composed | vote)
        return rows

    def _row(self, cell: Cell) -> dict[str, Any]:
        return {
            "noise": True,
            "noise_id": cell.noise.name,
            "quality": cell.noise.quality,
            "strength": cell.noise.strength,
            "where": cell.noise.where,
            "order": cell.order,
            "batch_size": cell.batch_size,
            **_scores(cell.predictions),
            **self._uncertain(cell.hits),
            **_composition(cell),
            **self._vote(cell),
        }

    def _purity(self, cell: Cell) -> dict[str, Any]:
        return {
            "noise_id": cell.noise.name,
            "batch_size": cell.batch_size,
            "mixed_share": cell.mixed_share,
            **_scores(cell.predictions),
            **self._uncertain(cell.hits),
            **_composition(cell),
            **self._vote(cell),
        }

    def _uncertain(self, hits: Hits) -> dict[str, Any]:
        return {
            "seeds": list(self._measured.seeds),
            "top1_by_seed": hits.by_seed.tolist(),
            "interval": list(self._accuracy(hits).interval),
        }

    def _vote(self, cell: Cell) -> dict[str, float]:
        correct = cell.votes == self._measured.labels
        return {"batch_vote_top1": 100 * float(correct.mean()), "agreement": cell.agreement}

    def _hits(self, noise: AuditedNoise, batch_size: int, name: str) -> Hits:
        if name == "clean":
            return self._measured.clean_hits
        order = {"noisy, shuffled": "shuffled", "noisy, class-sorted": "class_sorted"}[name]
        return self._measured.cell(noise, order, batch_size).hits

    def _comparison(
        self, noise: AuditedNoise, batch_size: int, of: str, against: str
    ) -> dict[str, Any]:
        ours, theirs = (self._hits(noise, batch_size, name) for name in (of, against))
        found = self._difference(ours, theirs)
        return {
            "noise_id": noise.name,
            "batch_size": batch_size,
            "of": of,
            "against": against,
            "difference": found.value,
            "interval": list(found.interval),
            "p_value": found.p_value,
            "difference_by_seed": (ours.by_seed - theirs.by_seed).tolist(),
        }

    def _finding(self, noise: AuditedNoise, comparisons: list[dict]) -> dict[str, Any]:
        batch_size = self._settings.batch_sizes[0]
        honest, leak = (
            next(
                c
                for c in comparisons
                if (c["noise_id"], c["batch_size"]) == (noise.name, batch_size)
                and (c["of"], c["against"]) == pair
            )
            for pair in (COMPARISONS[0], COMPARISONS[2])
        )
        names = ("clean", "noisy, shuffled", "noisy, class-sorted")
        tops = [float(self._hits(noise, batch_size, name).by_seed.mean()) for name in names]
        alike = [other for other in self._noises if other.words == noise.words]
        found = verdict.judge(
            name=noise.words if len(alike) == 1 else f"{noise.words} at {noise.where}",
            mixes_batch=noise.mixes_batch,
            batch_size=batch_size,
            clean=tops[0],
            shuffled=tops[1],
            class_sorted=tops[2],
            honest=_estimate(honest),
            leak=_estimate(leak),
        )
        measures = ("difference", "interval", "p_value")
        return {
            "noise_id": noise.name,
            "quality": noise.quality,
            "strength": noise.strength,
            "where": noise.where,
            "batch_size": batch_size,
            "leaks": found.leaks,
            "leak": {key: leak[key] for key in measures},
            "honest": found.honest,
            "honest_effect": {key: honest[key] for key in measures},
            "sentence": found.sentence,
        }

    def _per_class(self, noise: AuditedNoise, batch_size: int) -> list[dict[str, Any]]:
        labels = self._measured.labels
        counts = np.bincount(labels)
        names = {"clean": "clean", "shuffled": "noisy, shuffled"}
        names["class_sorted"] = "noisy, class-sorted"
        accuracies = {}
        for column, name in names.items():
            correct = self._hits(noise, batch_size, name).correct.mean(axis=0)
            sums = np.bincount(labels, weights=correct)
            accuracies[column] = 100 * sums / np.maximum(counts, 1)
        return [
            {"class": int(c), "n": int(counts[c])}
            | {column: float(values[c]) for column, values in accuracies.items()}
            for c in np.flatnonzero(counts)
        ]


def _scores(predictions: tuple[Predictions, ...]) -> dict[str, float | int]:
    """What `Predictions` sums, mean over seeds."""
    summaries = [p.summary() for p in predictions]
    means = {k: float(np.mean([s[k] for s in summaries])) for k in ("top1", "top5", "nll")}
    return means | {"n": summaries[0]["n"]}


def _estimate(comparison: dict[str, Any]) -> Estimate:
    low, high = comparison["interval"]
    return Estimate(comparison["difference"], (low, high), comparison["p_value"])


def _composition(cell: Cell) -> dict[str, float | None]:
    return {"purity": cell.purity, "label_bits_per_batch": cell.label_bits}
