"""Scores of one model in several orders of one kind."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.evaluation import Hits, Metric, Predictions, metrics

TIE = 1e-6  # a difference of likelihoods, relative, that rounding makes


@dataclasses.dataclass(frozen=True)
class OrderChange:
    """By how much predictions differ from those in another order, of the same examples.

    Attributes:
      nll: the largest difference of a negative log-likelihood, in nats.
      scale: the largest negative log-likelihood there is, in nats.
      predictions: how many examples were predicted otherwise in any order.
      examples: how many were compared: those in whole batches.
      orders: how many orders were compared.
    """

    nll: float
    scale: float
    predictions: int
    examples: int
    orders: int


@dataclasses.dataclass(frozen=True, eq=False)
class OrderScores:
    """Scores by seed and order, (seeds, orders), and what became of each example on average.

    Attributes:
      top1, top5: accuracy, percent.
      nll: mean negative log-likelihood, nats.
      balanced: mean accuracy per class, percent.
      printed: what the published meter makes of top-1, percent.
      printed_top5: and of top-5.
      metric: another metric; NaN where there is none.
      metric_of_fixed: the same metric of the predictions in the first order, in the batches of this
        one: any difference between orders is the metric's own.
      share: (seeds, n), the share of the orders in which each example was right.
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
        """One for all seeds."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{k: np.concatenate([getattr(s, k) for s in scores]) for k in names})

    @property
    def by_order(self) -> np.ndarray:
        """Accuracy in each order, mean over seeds, (orders,), percent."""
        return self.top1.mean(axis=0)

    @property
    def hits(self) -> Hits:
        """For statistics: the mean over the orders, whose choice has a variance of its own."""
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
) -> tuple[OrderScores, OrderChange]:
    """Scores of one seed, and by how much predictions differ from a reference.

    Args:
      predictions: of each order.
      orders: (n,) indices each.
      batch_size: of the protocol.
      labels: (n,).
      reference: predictions of the same examples in another order; None: in the first one.
      metric: scored beside accuracy.
    """
    rows, share = [], np.zeros(len(labels))
    nll, differ = 0.0, np.zeros(len(labels), bool)
    for found, order in zip(predictions, orders, strict=True):
        reference = reference or found
        rows.append(_row(found, reference, order, batch_size, labels, metric))
        share += found.rank < 1
        whole = order[: len(order) // batch_size * batch_size]
        moved = np.abs(found.nll - reference.nll)
        nll = max(nll, float(moved[whole].max()))
        # Equal logits may change places by rounding; then the likelihoods are the same.
        changed = (found.predicted != reference.predicted) & (moved > TIE * (1 + reference.nll))
        differ[whole] |= changed[whole]
    names = rows[0].keys()
    scores = OrderScores(
        **{name: np.array([[row[name] for row in rows]]) for name in names},
        share=share[None] / len(orders),
    )
    whole = len(labels) // batch_size * batch_size
    scale = float(np.abs(reference.nll).max())
    return scores, OrderChange(nll, scale, int(differ.sum()), whole, len(orders))


def _row(
    found: Predictions,
    fixed: Predictions,
    order: np.ndarray,
    batch_size: int,
    labels: np.ndarray,
    metric: Metric | None,
) -> dict[str, float]:
    """All numbers of one order."""
    batches = metrics.in_batches_of(labels, found.predicted, order, batch_size)
    top5 = np.where(found.rank < 5, labels, -1)
    of_fixed = metrics.in_batches_of(labels, fixed.predicted, order, batch_size)
    summary = found.summary()
    return {
        "top1": summary["top1"],
        "top5": summary["top5"],
        "nll": summary["nll"],
        "balanced": metrics.mean_per_class(batches),
        "printed": evaluation.published_meter(batches),
        "printed_top5": evaluation.published_meter(
            metrics.in_batches_of(labels, top5, order, batch_size)
        ),
        "metric": np.nan if metric is None else float(metric(batches)),
        "metric_of_fixed": np.nan if metric is None else float(metric(of_fixed)),
    }
