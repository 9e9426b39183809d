"""Tests of where one order falls among random orders, on a fixed test set.

The examples stay the same; only their order is drawn again. So these tests show whether this number
on this test set comes from the order, which is the question. The intervals cover other test sets.
"""

import dataclasses

import numpy as np
import scipy

from pnoise_jax import evaluation
from pnoise_jax.studies import decisions


@dataclasses.dataclass(frozen=True)
class OrderTest:
    """The accuracy in one kind of order, compared with the accuracies in others, in percent.

    Attributes:
      value: in the order under test; the mean if there are several.
      mean, deviation, lowest, highest: of the orders that it is compared with.
      orders: the number of those orders.
      below, above: how many of them score less than the value, and how many score more.
      p_value: two-sided, of the hypothesis that the value is one more draw like them.
      p_adjusted: the same, with Holm's correction for all such tests of the audit.
      interval: confidence interval of the value minus the mean, in points, on this test set; it
        excludes 0 if p_value is small.
    """

    value: float
    mean: float
    deviation: float
    lowest: float
    highest: float
    orders: int
    below: int
    above: int
    p_value: float
    interval: tuple[float, float]
    p_adjusted: float = 1.0

    @property
    def difference(self) -> float:
        """The value minus the mean, in points."""
        return self.value - self.mean

    def sign(self, level: float) -> int:
        """1 or -1 if the order is shown to score more or less, else 0; see `order_sign`."""
        return decisions.order_sign(vars(self), level)

    @property
    def flat(self) -> bool:
        """Whether all orders score the same, so that order changes nothing on this test set."""
        return self.lowest == self.highest and abs(self.value - self.mean) < 1e-9

    def within(self, bound: float) -> bool:
        """Whether the whole interval of the difference lies inside (-bound, bound)."""
        return decisions.is_within(vars(self), bound)


def among(values: np.ndarray, others: np.ndarray, *, least: float, confidence: float) -> OrderTest:
    """Tests whether orders score like one more draw of the others.

    Args:
      values: accuracies in the orders under test, (k,), percent.
      others: accuracies in the orders to compare with, (m,), percent.
      least: lower bound of the deviation, in points, such as the points of one example: if a few
        orders happen to agree, that is not certainty.
      confidence: confidence of the interval.
    """
    value, count = float(values.mean()), len(others)
    deviation = float(others.std(ddof=1))
    error = max(deviation, least)
    # As for a single order, even if the value is a mean of several: which examples share a class is
    # a draw, too, and it is the same in all of these orders.
    error *= float(np.sqrt(1 + 1 / count))
    difference = value - float(others.mean())
    estimate = evaluation.student(difference, error, count - 1, confidence=confidence)
    return OrderTest(
        value=value,
        mean=float(others.mean()),
        deviation=deviation,
        lowest=float(others.min()),
        highest=float(others.max()),
        orders=count,
        below=int(np.sum(others < value - 1e-9)),
        above=int(np.sum(others > value + 1e-9)),
        p_value=estimate.require_p_value(),
        interval=estimate.interval,
    )


def exceeds(values: np.ndarray, others: np.ndarray, *, n: int) -> float:
    """Returns Welch's one-sided p-value of orders scoring no more on average than the others.

    Args:
      values, others: accuracies, (k,) and (m,), percent.
      n: number of examples; a deviation is at least that of one example.
    """
    parts = [(max(x.var(ddof=1), (100 / n) ** 2) / len(x), len(x) - 1) for x in (values, others)]
    variance = sum(part for part, _ in parts)
    freedom = evaluation.degrees_of_freedom(*parts)
    return float(scipy.stats.t.sf((values.mean() - others.mean()) / np.sqrt(variance), freedom))
