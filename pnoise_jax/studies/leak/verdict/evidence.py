"""Derives the evidence about each noise and batch size from the measurements."""

import dataclasses
import functools

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.evaluation import Estimate, Hits
from pnoise_jax.studies.leak.checks.order_tests import OrderTest, among, exceeds
from pnoise_jax.studies.leak.checks.orders import (
    AS_GIVEN,
    CLASS_PERMUTED,
    CLASS_SORTED,
    OWN_PREDICTIONS,
    SHUFFLED,
)
from pnoise_jax.studies.leak.measurements import Cell, Measurements
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.verdict.kinds import Evidence


def gather(measured: Measurements, settings: AuditSettings) -> dict[tuple[str, int], Evidence]:
    """Returns the evidence by noise and batch size; all tests are corrected together."""
    words = [words for _, words in {(c.noise.name, c.noise.words) for c in measured.cells}]
    by_cell = {}
    for cell in measured.cells:
        name = cell.noise.words
        if words.count(name) > 1:
            name += f" at {cell.noise.where}"
        by_cell[cell.noise.name, cell.batch_size] = _evidence(measured, cell, settings, name)
    names = ("class_order", "file_order", "given_order")
    tests = [
        (key, name, getattr(evidence, name))
        for key, evidence in by_cell.items()
        if not evidence.dependence.independent  # no order can matter, so none is tested
        for name in names
        if getattr(evidence, name) is not None
    ]
    adjusted = evaluation.adjust_p_values([test.p_value for *_, test in tests]) if tests else ()
    for (key, name, test), p_value in zip(tests, adjusted, strict=True):
        corrected = dataclasses.replace(test, p_adjusted=float(p_value))
        by_cell[key] = dataclasses.replace(by_cell[key], **{name: corrected})
    return _correct_honest_effects(by_cell)


def _correct_honest_effects(
    by_cell: dict[tuple[str, int], Evidence],
) -> dict[tuple[str, int], Evidence]:
    """Applies Holm's correction; an independent noise has one effect at all batch sizes."""
    families = {
        key: (key[0], None) if evidence.dependence.independent else key
        for key, evidence in by_cell.items()
    }
    p_values = {
        families[key]: evidence.honest.require_p_value() for key, evidence in by_cell.items()
    }
    adjusted = dict(zip(p_values, evaluation.adjust_p_values(list(p_values.values())), strict=True))
    return {
        key: dataclasses.replace(evidence, p_honest=float(adjusted[families[key]]))
        for key, evidence in by_cell.items()
    }


def _evidence(measured: Measurements, cell: Cell, settings: AuditSettings, name: str) -> Evidence:
    labels, n = measured.labels, len(measured.labels)
    by_order = {kind: scores.by_order for kind, scores in cell.orders.items()}
    shuffled, permuted = by_order[SHUFFLED], by_order[CLASS_PERMUTED]
    test = functools.partial(among, least=100 / n, confidence=settings.confidence)
    # At least half a batch: in class order a batch's examples are often right or wrong together.
    half_batch = max(100, 50 * cell.batch_size) / n
    file_order = among(
        by_order[CLASS_SORTED], permuted, least=half_batch, confidence=settings.confidence
    )
    given_order, given_purity = None, None
    if AS_GIVEN in by_order:
        given_order = test(by_order[AS_GIVEN], shuffled)
        given_purity = _purity_as_given(labels, cell, settings)
    options = {
        "confidence": settings.confidence,
        "over_seeds": settings.over_seeds(len(measured.seeds)),
    }
    honest, balanced, gap = honest_effects(measured, cell, options)
    clean = measured.clean_hits
    itself = cell.dependence.independent and measured.clean_change is None
    if itself and np.array_equal(cell.orders[SHUFFLED].hits.by_seed, clean.by_seed):
        honest = Estimate(0.0, (0.0, 0.0), 1.0)  # the clean model is the function itself
    return Evidence(
        name=name,
        batch_size=cell.batch_size,
        n=n,
        by_size={
            other.batch_size: float(other.orders[SHUFFLED].by_order.mean())
            for other in measured.cells
            if other.noise.name == cell.noise.name
        },
        clean=float(clean.by_seed.mean()),
        clean_errors=float(np.mean((~clean.correct).sum(axis=1))),
        majority=100 * float(np.bincount(labels).max()) / n,
        dependence=cell.dependence,
        class_order=test(permuted, shuffled),
        file_order=file_order,
        given_order=given_order,
        given_purity=given_purity,
        own_predictions=_uncorrected(test(by_order[OWN_PREDICTIONS], shuffled)),
        p_labels=exceeds(permuted, by_order[OWN_PREDICTIONS], n=n),
        interventions=cell.interventions,
        no_interventions=cell.no_interventions,
        honest=honest,
        p_honest=honest.require_p_value(),
        honest_balanced=balanced,
        prior_gap=gap,
    )


def honest_effects(measured: Measurements, cell: Cell, options: dict) -> tuple:
    """Shuffled minus clean: for accuracy, for balanced accuracy, and the first minus the second."""
    shuffled, clean = cell.orders[SHUFFLED].hits, measured.clean_hits
    weighted = tuple(evaluation.balanced(hits, measured.labels) for hits in (shuffled, clean))
    differences = tuple(_minus(a, b) for a, b in zip((shuffled, clean), weighted, strict=True))
    pairs = ((shuffled, clean), weighted, differences)
    return tuple(evaluation.difference(*pair, **options) for pair in pairs)


def _minus(hits: Hits, others: Hits) -> Hits:
    return dataclasses.replace(hits, correct=hits.correct - others.correct)


def _uncorrected(test: OrderTest) -> OrderTest:
    """Skips the correction: this test only speaks against a leak, it cannot help to find one."""
    return dataclasses.replace(test, p_adjusted=test.p_value)


def _purity_as_given(labels: np.ndarray, cell: Cell, settings: AuditSettings) -> float:
    """The share of mates with an example's class: in the data set's order minus in random orders.

    0 if random orders have lower and higher shares: then the difference is chance.
    """
    generator = np.random.default_rng([settings.seed, 5])
    size, n = cell.noise.group_size or cell.batch_size, len(labels)
    orders = [np.arange(n), *(generator.permutation(n) for _ in range(settings.orders))]
    given, *others = (
        evaluation.purity(labels, evaluation.in_batches(order, size)) or 0.0 for order in orders
    )
    if min(others) <= given <= max(others):
        return 0.0
    return given - float(np.mean(others))
