"""Scores of one model in several orders of one kind."""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import numpy as np

from pnoise_jax.evaluation import Hits, Metric, Predictions, as_single_labels, metrics

OTHER_KERNEL = 1e-2  # as TIE and TIED, between batch sizes, which run different kernels
TIE = 1e-6  # a relative difference of likelihoods that rounding can make
TIED = 1e-3  # a lead of a class, in nats, that rounding can reverse


@dataclasses.dataclass(frozen=True)
class OrderChange:
    """How much predictions differ from those of the same examples in another order.

    Attributes:
      nll: the largest difference of a negative log-likelihood, in nats.
      scale: the largest negative log-likelihood in the reference, in nats.
      predictions: number of examples that were predicted differently in any order.
      examples: number of examples compared.
      orders: number of orders compared.
    """

    nll: float
    scale: float
    predictions: int
    examples: int
    orders: int


@dataclasses.dataclass(frozen=True, eq=False)
class OrderScores:
    """Scores by seed and order, (seeds, orders), and the mean over orders for each example.

    Attributes:
      top1, top5: accuracy, percent.
      nll: mean negative log-likelihood, nats.
      balanced: mean accuracy per class, percent.
      printed: top-1 as the published meter prints it, percent.
      printed_top5: top-5 as the published meter prints it, percent.
      metric: another metric; NaN if there is none.
      metric_of_fixed: the same metric for the predictions of the first order, in the batches of
        each order, so that any difference between orders comes from the metric.
      share: (seeds, n), the share of orders in which each example was predicted correctly.
    """

    top1: np.ndarray
    top5: np.ndarray
    nll: np.ndarray
    balanced: np.ndarray
    printed: np.ndarray
    printed_top5: np.ndarray
    metric: np.ndarray
    metric_of_fixed: np.ndarray
    share: np.ndarray

    @classmethod
    def over_seeds(cls, scores: list["OrderScores"]) -> "OrderScores":
        """Combines the scores of all seeds."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{k: np.concatenate([getattr(s, k) for s in scores]) for k in names})

    @property
    def by_order(self) -> np.ndarray:
        """Accuracy in each order, mean over seeds, (orders,), percent."""
        return self.top1.mean(axis=0)

    @property
    def hits(self) -> Hits:
        """For statistics: the mean over orders, with the variance from the choice of orders."""
        by_order = self.by_order
        variance = float(by_order.var(ddof=1)) / len(by_order) if len(by_order) > 1 else 0.0
        return Hits(self.share, order_variance=variance)


def score_orders(
    predictions: Iterable[Predictions],
    orders: list[np.ndarray],
    batch_size: int,
    labels: np.ndarray,
    *,
    reference: Predictions | None,
    metric: Metric | None,
    label_sets: np.ndarray | None = None,
) -> tuple[OrderScores, OrderChange]:
    """Returns the scores of one seed, and how much predictions differ from a reference.

    Args:
      predictions: the predictions in each order.
      orders: the orders, (n,) indices each.
      batch_size: batch size of the protocol.
      labels: (n,).
      reference: predictions of the same examples in another order; None for the first order.
      metric: a metric to score in addition to accuracy.
      label_sets: (n, k), if images have several labels.
    """
    rows, share = [], np.zeros(len(labels))
    nll, scale, differ = 0.0, 0.0, np.zeros(len(labels), bool)
    for predicted, order in zip(predictions, orders, strict=True):
        reference = reference or predicted
        scale = float(np.abs(reference.nll).max())
        scored = functools.partial(
            _score, metric, labels, label_sets, order=order, batch_size=batch_size
        )
        rows.append(_row(predicted, reference, order, batch_size, labels, scored))
        share += predicted.rank < 1
        whole = order[: len(order) // batch_size * batch_size]
        moved = np.abs(predicted.nll - reference.nll)
        nll = max(nll, float(moved[whole].max()))
        # Rounding can swap equal logits; then the likelihoods are the same.
        differ[whole] |= _changed(predicted, reference, TIE, TIED)[whole]
        partial = order[len(whole) :]
        differ[partial] |= _changed(predicted, reference, OTHER_KERNEL, OTHER_KERNEL)[partial]
    names = rows[0].keys()
    scores = OrderScores(
        **{name: np.array([[row[name] for row in rows]]) for name in names},
        share=share[None] / len(orders),
    )
    return scores, OrderChange(nll, scale, int(differ.sum()), len(labels), len(orders))


def _changed(predictions: Predictions, others: Predictions, nll: float, lead: float) -> np.ndarray:
    """Returns which examples are predicted differently, (n,) bool, by more than rounding.

    Args:
      nll: the relative change of a likelihood that rounding can make.
      lead: the lead of a class that rounding can reverse. It is tested as well, because a change
        between two wrong classes need not change the likelihood of the true class.
    """
    moved = np.abs(predictions.nll - others.nll) > nll * (1 + others.nll)
    ahead = np.minimum(predictions.lead, others.lead) > lead
    return (predictions.predicted != others.predicted) & (moved | ahead)


def differs_by_size(predictions: list[Predictions]) -> bool:
    """Whether predictions in batches of different sizes differ by more than rounding.

    Different batch sizes run different kernels, which may reverse a few classes that are nearly
    tied, but not one in a hundred.
    """
    first, *others = predictions
    for other in others:
        moved = np.abs(other.nll - first.nll) > OTHER_KERNEL * (1 + np.abs(first.nll))
        changed = _changed(other, first, OTHER_KERNEL, OTHER_KERNEL)
        flipped = np.count_nonzero(other.predicted != first.predicted)
        if moved.any() or changed.any() or flipped > max(1, len(first.predicted) // 100):
            return True
    return False


def _row(
    predictions: Predictions,
    fixed: Predictions,
    order: np.ndarray,
    batch_size: int,
    labels: np.ndarray,
    scored: Callable[[np.ndarray], float],
) -> dict[str, float]:
    """Returns all scores of one order."""
    correct, in_five = (predictions.rank < k for k in (1, 5))
    summary = predictions.summary()
    return {
        "top1": summary["top1"],
        "top5": summary["top5"],
        "nll": summary["nll"],
        "balanced": metrics.balanced_accuracy(labels, correct),
        "printed": metrics.mean_of_running(correct[order], batch_size),
        "printed_top5": metrics.mean_of_running(in_five[order], batch_size),
        "metric": scored(predictions.predicted),
        "metric_of_fixed": scored(fixed.predicted),
    }


def _score(
    metric: Metric | None,
    labels: np.ndarray,
    label_sets: np.ndarray | None,
    predicted: np.ndarray,
    *,
    order: np.ndarray,
    batch_size: int,
) -> float:
    """Returns the value of the metric, or NaN without a metric."""
    if metric is None:
        return np.nan
    labels = as_single_labels(predicted, labels, label_sets)
    return metrics.score(metric, metrics.in_batches_of(labels, predicted, order, batch_size))
