"""How well reconstruction errors separate held-out classes from the classes seen in training."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import scipy
from jax.sharding import Mesh

from pnoise_jax import data
from pnoise_jax.denoising.held_out import require_unseen_images
from pnoise_jax.denoising.task import Denoising
from pnoise_jax.evaluation import Protocol, degrees_of_freedom, proportion
from pnoise_jax.training import Run

FEWEST = 10  # examples in a group; there is no interval if one is smaller
# The largest effective number of examples of an area, in multiples of the smaller group. It is 3 if
# the scores of both groups have the same distribution; in simulations, the coverage holds up to 4.
_LIMIT = 4.0
_FEW_MISPLACED = 3.0  # examples of the smaller group; the limit is lower if fewer are misplaced


@dataclasses.dataclass(frozen=True, eq=False)
class RocCurve:
    """How well scores separate anomalies from normal examples.

    Attributes:
      false_positive_rate, true_positive_rate: (points,), from (0, 0) to (1, 1).
      thresholds: (points,), the lowest score that counts as an anomaly; the first is infinite.
      auroc: the area under the curve: the probability that an anomaly has a higher score than a
        normal example, with ties counted as half.
      interval: interval of the area, or None.
      confidence: confidence level of the interval.
      no_interval: the reason if there is no interval: "too few for an interval" if a group is
        smaller than `FEWEST`, or "all scores are equal"; None if there is one.
      normal, anomalous: number of examples in each group.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray
    auroc: float
    interval: tuple[float, float] | None
    confidence: float
    no_interval: str | None
    normal: int
    anomalous: int


def roc_curve(scores: np.ndarray, anomalous: np.ndarray, *, confidence: float = 0.95) -> RocCurve:
    """Returns the ROC curve of scores, with an interval for its area.

    The interval covers the choice of test examples, but not the variation between training runs.
    Like the intervals of accuracies in `evaluation`, it is a Clopper-Pearson interval, for the
    number of examples at which a proportion would have the variance of DeLong, DeLong and
    Clarke-Pearson (Comparing the Areas under Two or More Correlated ROC Curves, Biometrics 44,
    1988). Its coverage is at least its confidence, even for groups of ten and for areas near 0 and
    1, where it is wider than necessary.

    Args:
      scores: (n,), higher for anomalies.
      anomalous: (n,) bool.
      confidence: confidence level of the interval.

    Raises:
      ValueError: shapes differ, scores are not real numbers or not finite, elements are masked, a
        group has fewer than two examples, or the confidence is outside (0, 1).
    """
    from sklearn import metrics  # scikit-learn is slow to import

    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}: give a number between 0 and 1, such as 0.95")
    _refuse_masked(scores=scores, anomalous=anomalous)
    scores, anomalous = np.asarray(scores), np.asarray(anomalous)
    if not (jnp.issubdtype(scores.dtype, jnp.floating) or scores.dtype.kind in "biu"):
        raise ValueError(f"scores have dtype {scores.dtype}: give real numbers")
    scores = scores.astype(np.float64)
    if scores.ndim != 1 or scores.shape != anomalous.shape or anomalous.dtype != bool:
        raise ValueError(
            f"scores of shape {scores.shape} and anomalous of shape {anomalous.shape} and dtype "
            f"{anomalous.dtype}: give (n,) numbers and (n,) bools"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of the scores are not finite")
    anomalies, normal = scores[anomalous], scores[~anomalous]
    sizes = {"normal": len(normal), "anomalous": len(anomalies)}
    if min(sizes.values()) < 2:
        raise ValueError(
            f"{len(anomalies)} anomalies and {len(normal)} normal examples: a ROC curve needs "
            "at least two of each"
        )
    false_rate, true_rate, thresholds = metrics.roc_curve(anomalous, scores)
    ranks = scipy.stats.rankdata(np.concatenate([anomalies, normal]))[: len(anomalies)]
    # Ties add halves to the Mann-Whitney U, so twice U is an integer and exact at both ends.
    doubled = round(2 * ranks.sum()) - len(anomalies) * (len(anomalies) + 1)
    auroc = doubled / (2 * len(anomalies) * len(normal))
    reason, interval = _why_no_interval(scores, **sizes), None
    if reason is None:
        interval = _interval(anomalies, normal, doubled, confidence)
    return RocCurve(false_rate, true_rate, thresholds, auroc, interval, confidence, reason, **sizes)


def _refuse_masked(**arrays: np.ndarray) -> None:
    """Raises ValueError if elements are masked, as their values would be used as if valid."""
    for name, array in arrays.items():
        if np.ma.is_masked(array):
            raise ValueError(
                f"{name}: {np.ma.count_masked(array)} elements are masked; leave these examples out"
            )


def _why_no_interval(scores: np.ndarray, *, normal: int, anomalous: int) -> str | None:
    if scores.min() == scores.max():
        return "all scores are equal"
    if min(normal, anomalous) < FEWEST:
        return "too few for an interval"
    return None


def _interval(
    anomalies: np.ndarray, normal: np.ndarray, doubled: int, confidence: float
) -> tuple[float, float]:
    """Returns the interval of an area, given twice its U statistic."""
    pairs, smaller = len(anomalies) * len(normal), min(len(anomalies), len(normal))
    misplaced = min(doubled, 2 * pairs - doubled) / (2 * pairs) * smaller
    if misplaced == 0:
        size = float(smaller)
    else:
        # Near 0 and 1 the sample variance says little about the true variance, so the number of
        # examples is capped. The cap falls to the size of the smaller group as fewer are misplaced.
        limit = smaller * (1 + (_LIMIT - 1) * min(1.0, misplaced / _FEW_MISPLACED))
        size = min(limit, _effective_size(anomalies, normal, doubled / (2 * pairs), confidence))
    share = doubled / (2 * pairs)
    low, high = proportion(share * size, size, confidence=confidence).interval
    return low / 100, high / 100


def _effective_size(
    anomalies: np.ndarray, normal: np.ndarray, area: float, confidence: float
) -> float:
    """Returns the number of independent examples whose accuracy would vary as much as this area."""
    ranks = scipy.stats.rankdata(np.concatenate([anomalies, normal]))
    below = ranks[: len(anomalies)] - scipy.stats.rankdata(anomalies)
    above = len(anomalies) - ranks[len(anomalies) :] + scipy.stats.rankdata(normal)
    sources = [
        (float(pairs.var(ddof=1)) / len(pairs), len(pairs) - 1)
        for pairs in (below / len(normal), above / len(anomalies))
    ]
    variance = sum(each for each, _ in sources)
    tail, freedom = (1 - confidence) / 2, degrees_of_freedom(*sources)
    correction = scipy.stats.norm.isf(tail) / scipy.stats.t.isf(tail, freedom)
    return area * (1 - area) / variance * float(correction) ** 2


def score_anomalies(
    run: Run, *, mesh: Mesh, learned: data.Dataset | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores the whole test split of a run whose training had held-out classes.

    The score of an image is its reconstruction error, without noise.

    Args:
      run: a run of the task `Denoising`.
      mesh: the devices.
      learned: the training split, if the run was restored with another one; by default the one in
        the run's config.

    Returns:
      The scores, (n,) float32, and whether each example is of a held-out class, (n,) bool.

    Raises:
      ValueError: the run is of another task, nothing was held out, or the test split has only
        held-out classes, has none of them, or shares images with the training split.
    """
    task, setup = run.experiment.task, run.experiment
    if not isinstance(task, Denoising):
        raise ValueError(
            f"task.name={setup.config.task.name!r} reconstructs no images: anomaly scores need a "
            "run of task.name='denoising'"
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
    require_unseen_images(dataset, setup.train_data if learned is None else learned)
    clean = Protocol(noise=False, order="stored", batch_size=setup.config.evaluation.batch_size)
    return task.errors(run.variables, dataset, mesh, clean), anomalous


def nearest_distances(images: np.ndarray, training_images: np.ndarray) -> np.ndarray:
    """Returns the distance from each image to the nearest training image, (n,).

    This is an anomaly score that needs no model.

    Args:
      images: (n, ...) uint8.
      training_images: (m, ...) uint8.

    Raises:
      ValueError: there are no images, they are not uint8, some are masked, or their shapes differ.
    """
    _refuse_masked(images=images, training_images=training_images)
    images, training_images = np.asarray(images), np.asarray(training_images)
    for name, array in (("images", images), ("training_images", training_images)):
        if array.dtype != np.uint8 or array.ndim < 2 or not array.size:
            raise ValueError(
                f"{name} have shape {array.shape} and dtype {array.dtype}: give at least one "
                "image, (n, height, width, channels) of uint8"
            )
    if images.shape[1:] != training_images.shape[1:]:
        raise ValueError(
            f"images have shape {images.shape[1:]} and training_images "
            f"{training_images.shape[1:]}: give images of one shape"
        )
    from sklearn.neighbors import NearestNeighbors  # scikit-learn is slow to import

    flat = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (images, training_images))
    ours, theirs = flat
    return NearestNeighbors(n_neighbors=1, algorithm="brute").fit(theirs).kneighbors(ours)[0][:, 0]
