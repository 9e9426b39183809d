"""Measures every protocol of an audit, and keeps the results per example."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable

import numpy as np

from pnoise_jax import data, evaluation
from pnoise_jax.evaluation import Metric, Predictions
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.audited.protocol import Audited
from pnoise_jax.studies.leak.checks import interventions, mate_groups
from pnoise_jax.studies.leak.checks.dependence import (
    Dependence,
    check_batches,
    compare_orders,
    logit_scale,
)
from pnoise_jax.studies.leak.checks.orders import CLASS_SORTED, SHUFFLED, Orders
from pnoise_jax.studies.leak.checks.scores import (
    OrderChange,
    OrderScores,
    differs_by_size,
    score_orders,
)
from pnoise_jax.studies.leak.measurements import Cell, Composition, Measurements
from pnoise_jax.studies.leak.settings import AuditSettings


def measure(
    subjects: Iterable[Audited],
    labels: np.ndarray,
    noises: tuple[AuditedNoise, ...],
    settings: AuditSettings,
    report: Callable[[str], None],
    *,
    metric: Metric | None = None,
    label_sets: np.ndarray | None = None,
) -> Measurements:
    """Runs all protocols on all subjects, one subject at a time.

    Args:
      subjects: made lazily, so that only one subject's representations are in memory at a time.
      labels: (n,), the test set's labels, which sort the orders and select the batch mates.
      noises: the noises to audit, with different names.
      settings: settings with batch sizes.
      report: called with a line when a subject is done.
      metric: a metric to score in addition to accuracy.
      label_sets: (n, k), if images have several labels; the subjects must score by them, too.

    Raises:
      ValueError: the clean model's logits depend on the batch, so that it cannot be the reference;
        a model cannot be resumed where its noise enters; or a function fails on a batch.
    """
    pairs = itertools.product(noises, settings.sizes)
    plans = [_Plan(noise, size, labels, settings, label_sets) for noise, size in pairs]
    orders = Orders.of(labels, settings)
    clean, seeds, changes = [], [], []
    classes = 0
    timer = _Timer()
    for subject in subjects:
        timer.lap("restoring")
        logits, predictions = subject.clean()
        clean.append(predictions)
        timer.lap("clean pass")
        changes.append(subject.clean_change())
        _require_reference(subject.seed, logits, changes[-1])
        timer.lap("batch check")
        if metric is not None and not seeds:  # before any long work
            predicted = predictions.predicted
            single = evaluation.as_single_labels(predicted, labels, label_sets)
            evaluation.metrics.score(metric, [(single.copy(), predicted.copy())])
        by_kind = orders.with_predictions(predictions.predicted, settings)
        for plan in plans:
            plan.run(subject, logits, by_kind, timer, metric)
        # Without a clean function, the clean predictions are the function's in batches of one.
        alone = predictions if changes[-1] is None else None
        _compare_sizes(plans, alone)
        seeds.append(subject.seed)
        classes = logits.shape[1]
        report(_progress(subject.seed, clean[-1], plans[0]))
        del subject, logits  # free them before the next subject's representations are made
    return Measurements(
        labels=labels,
        label_sets=label_sets,
        num_classes=classes,
        seeds=tuple(seeds),
        clean=tuple(clean),
        cells=tuple(plan.cell() for plan in plans),
        clean_change=None if None in changes else max(changes),
        seconds=timer.seconds,
        metric=metric,
    )


def _compare_sizes(plans: list["_Plan"], alone: Predictions | None) -> None:
    """Notes for which noises the last subject's predictions depend on the batch size."""
    for name in {plan.noise.name for plan in plans}:
        of_noise = [plan for plan in plans if plan.noise.name == name]
        predictions = [plan.last_shuffled for plan in of_noise] + ([] if alone is None else [alone])
        if not of_noise[0].noise.draws_by_batch and differs_by_size(predictions):
            for plan in of_noise:
                plan.note_dependence_on_size()


class _Timer:
    """Measures the seconds of each part of an audit."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Attributes the time since the last lap to ``part``."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now


class _Plan:
    """One noise at one batch size: runs its protocols on each subject, and keeps the results."""

    def __init__(
        self,
        noise: AuditedNoise,
        batch_size: int,
        labels: np.ndarray,
        settings: AuditSettings,
        label_sets: np.ndarray | None,
    ):
        self.noise, self.batch_size = noise, batch_size
        self._labels, self._settings = labels, settings
        self._label_sets = label_sets
        self._design: mate_groups.Groups | None = None
        self._no_interventions = None
        shares = np.linspace(0, 1, settings.purity_steps) if noise.mixes_batch else ()
        swept = batch_size == settings.sizes[0]
        self._shares = [float(share) for share in shares] if swept else []
        self._scores: list[dict[str, OrderScores]] = []
        self._dependence: list[Dependence] = []
        self._targets: list[interventions.Found] = []
        self._kept: dict[str | float, list] = {}
        self._orders: dict[str | float, np.ndarray] = {}

    def run(
        self,
        subject: Audited,
        logits: np.ndarray,
        by_kind: dict[str, list[np.ndarray]],
        timer: _Timer,
        metric: Metric | None,
    ) -> None:
        """Runs all protocols on one subject, whose clean logits are (n, classes)."""
        noise, size = self.noise, self.batch_size
        if size == self._settings.sizes[0]:
            subject.require_resumable(noise, size)
        seed = (self._settings.seed + subject.seed) % 2**32
        function = subject.batch_function(noise, seed)

        def predict(order: np.ndarray) -> Predictions:
            return subject.predict(noise, order, size, seed)

        changes = self._score(predict, by_kind, logits, metric)
        timer.lap("protocols")
        dependence = check_batches(subject.inputs, function, by_kind, size)
        drift = subject.drift()
        if drift > dependence.allowed:  # though repeated calls in a row agree
            dependence = dataclasses.replace(dependence, deterministic=False, largest_change=drift)
        if not noise.draws_by_batch:
            dependence = compare_orders(dependence, changes)
        self._dependence.append(dependence)
        timer.lap("batch check")
        for share in self._shares:
            order = data.partly_sorted_order(
                self._labels, mixed_share=share, batch_size=size, seed=self._settings.seed
            )
            self._keep(share, order, predict(order), logits)
        timer.lap("purity sweep")
        self._intervene(subject, logits, seed)
        timer.lap("interventions")

    def _score(
        self,
        predict: Callable[[np.ndarray], Predictions],
        by_kind: dict[str, list[np.ndarray]],
        logits: np.ndarray,
        metric: Metric | None,
    ) -> list[OrderChange]:
        """Keeps the scores of all orders; returns how predictions change with the order."""
        scores, changes, first = {}, [], None
        for kind, orders in by_kind.items():
            predictions = map(predict, orders)
            if kind in (SHUFFLED, CLASS_SORTED):
                kept = next(predictions)
                first = first or kept
                self._keep(kind, orders[0], kept, logits)
                predictions = itertools.chain([kept], predictions)
            scored, change = score_orders(
                predictions,
                orders,
                self.batch_size,
                self._labels,
                reference=first,
                metric=metric,
                label_sets=self._label_sets,
            )
            scores[kind] = scored
            changes.append(change)
        self._scores.append(scores)
        return changes

    @property
    def last_shuffled(self) -> Predictions:
        """The last subject's predictions in the first random order."""
        return self._kept[SHUFFLED][-1][0]

    def note_dependence_on_size(self) -> None:
        """Records that the last subject's predictions depend on the batch size."""
        self._dependence[-1] = dataclasses.replace(self._dependence[-1], differs_by_size=True)

    def cell(self) -> Cell:
        """Returns the results over all subjects."""
        orders = {
            kind: OrderScores.over_seeds([scores[kind] for scores in self._scores])
            for kind in self._scores[0]
        }
        return Cell(
            noise=self.noise,
            batch_size=self.batch_size,
            orders=orders,
            shuffled=self._composition(SHUFFLED),
            class_sorted=self._composition(CLASS_SORTED),
            sweep=tuple(map(self._composition, self._shares)),
            dependence=self._dependence_of(orders),
            interventions=self._interventions(),
            no_interventions=self._no_interventions,
        )

    def _dependence_of(self, orders: dict[str, OrderScores]) -> Dependence:
        """Combines all subjects; changes that were ignored as ties must not move an accuracy."""
        dependence = Dependence.over_seeds(self._dependence)
        top1 = np.concatenate([scores.top1 for scores in orders.values()], axis=1)
        if self.noise.draws_by_batch or np.ptp(top1, axis=1).max() < 150 / len(self._labels):
            return dependence
        return dataclasses.replace(dependence, differs=True)

    def _keep(
        self, name: str | float, order: np.ndarray, predictions: Predictions, logits: np.ndarray
    ) -> None:
        groups = evaluation.in_batches(order, self.noise.group_size or self.batch_size)
        self._orders[name] = order
        self._kept.setdefault(name, []).append((predictions, vote(logits, groups)))

    def _composition(self, name: str | float) -> Composition:
        predictions, votes = zip(*self._kept[name], strict=True)
        order = self._orders[name]
        groups = evaluation.in_batches(order, self.noise.group_size or self.batch_size)
        return Composition(
            predictions=predictions,
            votes=np.stack(votes),
            batches=evaluation.in_batches(order, self.batch_size),
            purity=evaluation.purity(self._labels, groups),
            label_bits=evaluation.label_bits_per_batch(self._labels, groups),
            mixed_share=name if isinstance(name, float) else None,
        )

    def _intervene(self, subject: Audited, clean: np.ndarray, seed: int) -> None:
        """Runs the interventions; the first model's clean logits determine the mates."""
        self._design = self._design or mate_groups.pair_up(
            self._labels,
            clean,
            self.batch_size,
            group_size=self.noise.group_size,
            seed=self._settings.seed,
        )
        if self._design is None:
            self._no_interventions = "no two classes have enough examples for a batch of one class"
            return
        if self._no_interventions is not None:
            return
        planned = interventions.choose_targets(self._design, clean, blank=subject.blank is not None)
        batches_to_logits = functools.partial(subject.logits_of_batches, self.noise, seed=seed)
        try:
            outcome = interventions.intervene(planned, batches_to_logits)
        except ValueError as error:  # not fatal: only the audit makes such batches
            self._no_interventions = str(error)
            return
        self._targets.append(outcome)

    def _interventions(self) -> interventions.Interventions | None:
        if self._no_interventions is not None:
            return None
        return interventions.summarise(
            self._targets,
            resamples=self._settings.enough_resamples,
            seed=self._settings.seed,
        )


def vote(logits: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Returns the class with the largest mean logit in each example's batch, (n,) int32.

    Args:
      logits: (n, classes).
      batches: (n,), the number of each example's batch, from 0.
    """
    order = np.argsort(batches, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(batches[order])) + 1)
    classes = [logits[rows].sum(axis=0, dtype=np.float64).argmax() for rows in members]
    return np.array(classes, np.int32)[batches]


def _require_reference(seed: int, logits: np.ndarray, change: tuple[float, int] | None) -> None:
    if change is None:
        return
    size, _ = change
    allowed = 1e-3 * logit_scale(logits) + 1e-5
    if size > allowed:
        raise ValueError(
            f"the clean model of seed {seed} cannot be the reference: a logit changes by "
            f"{size:.3g} (allowed: {allowed:.2g}) when its example has other batch mates; give "
            "the model without noise, and with frozen batch statistics"
        )


def _progress(seed: int, clean: Predictions, plan: _Plan) -> str:
    scores = plan._scores[-1]
    tops = [100 * float(np.mean(clean.rank < 1))]
    tops += [float(scores[kind].top1.mean()) for kind in (SHUFFLED, CLASS_SORTED)]
    return (
        f"seed {seed}: top-1 clean {tops[0]:.1f} %, noisy shuffled {tops[1]:.1f} %, noisy "
        f"class-sorted {tops[2]:.1f} %"
    )
