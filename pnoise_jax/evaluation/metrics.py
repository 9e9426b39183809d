"""Metrics of a whole evaluation: from batches of predictions to one number in percent.

A metric takes the batches of an evaluation in the order of their evaluation, so that an audit can
test whether its value depends on the batching. Accuracy, mean accuracy per class and macro F1 do
not depend on it. A mean over batches and the published meter do.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from pnoise_jax.counting import counted
from pnoise_jax.registry import did_you_mean

Batch = tuple[np.ndarray, np.ndarray]  # labels and predicted classes, (b,) each
Metric = Callable[[Sequence[Batch]], float]


def accuracy(batches: Sequence[Batch]) -> float:
    """The share of examples predicted correctly, in percent."""
    labels, predicted = _joined(batches)
    return 100 * float(np.mean(labels == predicted))


def mean_per_class(batches: Sequence[Batch]) -> float:
    """Balanced accuracy: the mean over classes of the accuracy on each class, in percent."""
    labels, predicted = _joined(batches)
    return balanced_accuracy(labels, labels == predicted)


def balanced_accuracy(labels: np.ndarray, correct: np.ndarray) -> float:
    """`mean_per_class`, from labels (n,) and whether each example was predicted correctly, (n,)."""
    counts = np.bincount(labels)
    by_class = np.bincount(labels, weights=correct)
    return 100 * float(np.mean(by_class[counts > 0] / counts[counts > 0]))


def macro_f1(batches: Sequence[Batch]) -> float:
    """The mean over classes of the F1 score, in percent; 0 for a class never predicted correctly.

    The classes are those that occur among labels or predictions, as in scikit-learn's f1_score.
    """
    labels, predicted = _joined(batches)
    size = int(max(labels.max(), predicted.max())) + 1
    true_positives = np.bincount(labels[labels == predicted], minlength=size)
    occurrences = np.bincount(labels, minlength=size) + np.bincount(predicted, minlength=size)
    present = occurrences > 0
    return 100 * float(np.mean(2 * true_positives[present] / occurrences[present]))


def mean_over_batches(metric: Metric) -> Metric:
    """Returns ``metric`` averaged over batches, which is a common mistake.

    The average equals the metric only if the metric is a mean over examples and all batches have
    the same size.
    """

    def averaged(batches: Sequence[Batch]) -> float:
        return float(np.mean([metric([batch]) for batch in batches]))

    averaged.__name__ = f"{getattr(metric, '__name__', 'metric')} averaged over batches"
    return averaged


def published_meter(batches: Sequence[Batch]) -> float:
    """The accuracy that the published ViT program prints and logs, in percent.

    After each batch the program computes the accuracy so far, and it reports the mean of these
    accuracies over batches. So early examples weigh most: with B batches, batch j has the weight
    sum(1 / i for i in j..B) / B; in a plain mean it is 1 / B. In class order, the first classes
    therefore count several times as much as the last.
    """
    _joined(batches)  # to check the batches
    correct = np.cumsum([np.sum(labels == predicted) for labels, predicted in batches])
    seen = np.cumsum([len(labels) for labels, _ in batches])
    return 100 * float(np.mean(correct / seen))


def mean_of_running(correct: np.ndarray, batch_size: int) -> float:
    """`published_meter`, from whether each example was predicted correctly, (n,), in order."""
    ends = np.append(np.arange(batch_size, len(correct), batch_size), len(correct))
    return 100 * float(np.mean(np.cumsum(correct)[ends - 1] / ends))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "mean_per_class": mean_per_class,
    "macro_f1": macro_f1,
    "published_meter": published_meter,
}


def metric_named(name: str) -> Metric:
    """Returns the metric of `METRICS` with this name, or the function "module:function".

    Raises:
      ValueError: there is no such metric, module or function, or it cannot be called.
    """
    if name in METRICS:
        return METRICS[name]
    module, colon, attribute = name.partition(":")
    fix = "'module:function', a function of a list of (labels, predicted) pairs, one per batch"
    if not colon:
        raise ValueError(f"metric={name!r} is unknown{did_you_mean(name, METRICS)}; or give {fix}")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything
        raise ValueError(
            f"metric={name!r} cannot be imported ({type(error).__name__}: {error}); give {fix}"
        ) from error
    if not callable(function):
        raise ValueError(
            f"metric={name!r} is of type {type(function).__name__}, which cannot be called; give "
            f"{fix}"
        )
    return cast(Metric, function)


def score(metric: Metric, batches: Sequence[Batch]) -> float:
    """Returns the value of a metric.

    Raises:
      ValueError: the metric fails, or does not return one finite number; the error names it.
    """
    name = getattr(metric, "__name__", repr(metric))
    fix = "give a function from a list of (labels, predicted) pairs, one per batch, to a number"
    count = counted(len(batches), "batch", "batches")
    try:
        value = metric(batches)
        number = float(value)
    except Exception as error:
        raise ValueError(
            f"metric {name} failed on {count}: {type(error).__name__}: {error}; {fix}"
        ) from error
    if not np.isfinite(number):
        raise ValueError(f"metric {name} returned {number} for {count}; {fix}")
    return number


def in_batches_of(
    labels: np.ndarray, predicted: np.ndarray, order: np.ndarray, batch_size: int
) -> list[Batch]:
    """Makes the argument of a metric: batches of an order, of which the last may be smaller.

    Args:
      labels, predicted: (n,), in the data set's order.
      order: (n,) indices.
      batch_size: number of examples in a batch.
    """
    cuts = range(batch_size, len(order), batch_size)
    return list(zip(np.split(labels[order], cuts), np.split(predicted[order], cuts), strict=True))


def _joined(batches: Sequence[Batch]) -> Batch:
    for number, (labels, predicted) in enumerate(batches):
        shapes = np.shape(labels), np.shape(predicted)
        if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            raise ValueError(
                f"batch {number} has labels {shapes[0]} and predictions {shapes[1]}: give labels "
                "(b,) and predicted classes (b,)"
            )
    labels, predicted = (np.concatenate(each) for each in zip(*batches, strict=True))
    if labels.dtype.kind in "iu" and labels.min(initial=0) < 0:
        raise ValueError(f"label {labels.min()}: leave out examples without a label")
    return labels, predicted
