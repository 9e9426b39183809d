"""How well reconstruction errors tell classes that training has never shown from those it has."""

import dataclasses
from typing import Any

import numpy as np
import scipy.stats
from jax.sharding import Mesh
from sklearn import metrics

from pnoise_jax.denoising.task import Denoising
from pnoise_jax.evaluation import Protocol, proportion
from pnoise_jax.training import Run

_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class RocCurve:
    """How well scores tell anomalies from what is normal.

    Attributes:
      false_positive_rate, true_positive_rate: (points,), from (0, 0) to (1, 1).
      thresholds: (points,), an example is called an anomaly from this score on; the first is
        infinite.
      auroc: the area under the curve: the probability that an anomaly has a higher score than a
        normal example, ties counting half.
      interval: of the area.
      normal, anomalous: how many examples.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray
    auroc: float
    interval: tuple[float, float]
    normal: int
    anomalous: int


def roc_curve(
    scores: np.ndarray, anomalous: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> RocCurve:
    """The ROC curve of scores, with an interval of its area.

    The interval is a percentile bootstrap that draws normal examples and anomalies again, each
    among themselves. It is about other test examples, not about another training. A perfect
    separation looks the same in every resample; its lower limit is that of Clopper and Pearson for
    as many examples as the smaller group has.

    Args:
      scores: (n,), higher for anomalies.
      anomalous: (n,) bool.
      confidence: of the interval.
      seed: of the bootstrap.

    Raises:
      ValueError: shapes differ, a score is not finite, or one of the groups has fewer than two
        examples.
    """
    scores, anomalous = np.asarray(scores, np.float64), np.asarray(anomalous)
    if scores.ndim != 1 or scores.shape != anomalous.shape or anomalous.dtype != bool:
        raise ValueError(
            f"scores of shape {scores.shape} and anomalous of shape {anomalous.shape} and dtype "
            f"{anomalous.dtype}: give (n,) numbers and (n,) bools"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of the scores are not finite")
    groups = scores[anomalous], scores[~anomalous]
    if min(map(len, groups)) < 2:
        raise ValueError(
            f"{len(groups[0])} anomalies and {len(groups[1])} normal examples: a ROC curve needs "
            "at least two of each"
        )
    false_rate, true_rate, thresholds = metrics.roc_curve(anomalous, scores)
    auroc = float(metrics.roc_auc_score(anomalous, scores))
    sizes = {"normal": len(groups[1]), "anomalous": len(groups[0])}
    interval = _interval(groups, auroc, confidence, seed)
    return RocCurve(false_rate, true_rate, thresholds, auroc, interval, **sizes)


def _interval(
    groups: tuple[np.ndarray, np.ndarray], auroc: float, confidence: float, seed: int
) -> tuple[float, float]:
    smaller = min(map(len, groups))
    if auroc in (0.0, 1.0):
        exact = proportion(round(auroc * smaller), smaller, confidence=confidence)
        return exact.interval[0] / 100, exact.interval[1] / 100
    drawn = scipy.stats.bootstrap(
        groups,
        _area,
        n_resamples=_RESAMPLES,
        batch=100,
        vectorized=True,
        paired=False,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = drawn.confidence_interval
    return float(low), float(high)


def _area(anomalies: np.ndarray, normal: np.ndarray, axis: int = -1) -> Any:
    """The area under the ROC curve: Mann and Whitney's U, divided by the number of pairs."""
    ranks = scipy.stats.rankdata(np.concatenate([anomalies, normal], axis), axis=axis)
    count, others = anomalies.shape[axis], normal.shape[axis]
    total = np.take(ranks, range(count), axis=axis).sum(axis=axis)
    return (total - count * (count + 1) / 2) / (count * others)


def score_anomalies(run: Run, *, mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Scores the whole test split of a run whose training had held-out classes.

    The score of an image is its reconstruction error, without noise.

    Args:
      run: of the task `Denoising`.
      mesh: the devices.

    Returns:
      The scores (n,) float32, and which examples are of held-out classes, (n,) bool.

    Raises:
      ValueError: the run is of another task, nothing was held out, or the test split has no example
        of the classes that were, or of the others.
    """
    task, setup = run.experiment.task, run.experiment
    if not isinstance(task, Denoising):
        raise ValueError(
            f"task.name={setup.config.task.name!r} reconstructs nothing: anomaly scores need a run "
            "of task.name='denoising'"
        )
    if not task.held_out:
        raise ValueError(
            "task.held_out_classes=(): training has seen every class, so none is an anomaly; train "
            "with some held out, such as task.held_out_classes=('8',)"
        )
    dataset = setup.test_data
    anomalous = np.isin(dataset.labels, task.held_out)
    if anomalous.all() or not anomalous.any():
        which = "only" if anomalous.all() else "no"
        raise ValueError(
            f"data.test_split={dataset.split!r} of {dataset.name} has {which} examples of "
            f"task.held_out_classes={tuple(task.held_out_classes)!r}: give a split with both"
        )
    clean = Protocol(noise=False, order="stored", batch_size=setup.config.evaluation.batch_size)
    return task.errors(run.variables, dataset, mesh, clean), anomalous


def nearest_distances(images: np.ndarray, training_images: np.ndarray) -> np.ndarray:
    """The distance of each image to the nearest training image, (n,): a score without a model.

    Args:
      images: (n, ...) uint8.
      training_images: (m, ...) uint8.
    """
    from sklearn.neighbors import NearestNeighbors  # a second to import, and only needed here

    flat = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (images, training_images))
    ours, theirs = flat
    return NearestNeighbors(n_neighbors=1).fit(theirs).kneighbors(ours)[0][:, 0]
