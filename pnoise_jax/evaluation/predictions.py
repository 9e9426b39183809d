"""Predictions of a model for each example of a test set, collected batch by batch."""

import collections
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from pnoise_jax import data, parallel
from pnoise_jax.evaluation.correctness import preferred_labels

REPORT_EVERY = 30.0  # seconds between sentences about the progress
_AT_ONCE = 2**17  # logits to score at once: they fit into a CPU's cache


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions of a model for each example, in the order of the data set.

    Attributes:
      rank: (n,) int32, how many classes the model prefers to the true one; 0 if top-1 is correct.
        If an image has several labels, the one that the model prefers among them counts.
      nll: (n,) float32, negative log-likelihood of the true class, in nats; if an image has several
        labels, of their total probability.
      predicted: (n,) int32, the class with the largest logit.
      lead: (n,) float32, the largest logit minus the second largest. It is infinite if there is
        one class, and may be infinite if the exponential of the difference underflows.
    """

    rank: np.ndarray
    nll: np.ndarray
    predicted: np.ndarray
    lead: np.ndarray

    @classmethod
    def of(
        cls, logits: np.ndarray, labels: np.ndarray, label_sets: np.ndarray | None = None
    ) -> "Predictions":
        """Makes predictions from logits (n, classes), labels (n,) and, if any, label sets (n, k).

        Raises:
          ValueError: a label is not a column of the logits.
        """
        logits, labels = np.asarray(logits), np.asarray(labels)
        if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
            raise ValueError(
                f"labels go from {labels.min()} to {labels.max()}, but there are "
                f"{logits.shape[1]} logits: give columns, and leave out examples without a label"
            )
        if logits.dtype not in (np.float32, np.float64):  # half precision cannot sum many classes
            logits = logits.astype(np.float32)
        predictions = cls._empty(len(labels))
        with np.errstate(invalid="ignore"):  # inf - inf: callers report values that are not finite
            for rows in _parts(logits):
                part, sets = logits[rows], None if label_sets is None else label_sets[rows]
                true, members = preferred_labels(np, part, labels[rows], sets)
                predictions.rank[rows] = _rank(part, true)
                predictions.predicted[rows], total, predictions.lead[rows] = _log_sum_exp(part)
                of_true = members[:, 0] if sets is None else scipy.special.logsumexp(members, 1)
                predictions.nll[rows] = total - of_true
        return predictions

    @classmethod
    def of_batches(
        cls,
        batches: Iterable[tuple[np.ndarray, np.ndarray]],
        labels: np.ndarray,
        label_sets: np.ndarray | None = None,
    ) -> "Predictions":
        """Makes predictions from batches: pairs of indices (b,) and logits (b, classes).

        Only a few batches of logits are in memory at a time. Several small batches are scored at
        once, because the calls for each would take longer than the arithmetic.

        Args:
          batches: in any order; they must contain every example once.
          labels: (n,), the labels of all examples.
          label_sets: (n, k), the label sets of all examples, if they have several labels.
        """
        predictions = cls._empty(len(labels))
        waiting, size = [], 0

        def score() -> None:
            rows, logits = map(np.concatenate, zip(*waiting, strict=True))
            part = cls.of(logits, labels[rows], None if label_sets is None else label_sets[rows])
            for field in dataclasses.fields(cls):
                getattr(predictions, field.name)[rows] = getattr(part, field.name)

        for batch in batches:
            waiting.append(batch)
            size += batch[1].size
            if size >= _AT_ONCE:
                score()
                waiting, size = [], 0
        if waiting:
            score()
        return predictions

    @classmethod
    def _empty(cls, count: int) -> "Predictions":
        dtypes = (np.int32, np.float32, np.int32, np.float32)
        return cls(*(np.empty(count, dtype) for dtype in dtypes))

    def summary(self) -> dict[str, float | int]:
        """Returns ``top1`` and ``top5`` in percent, the mean ``nll``, and ``n``."""
        return {
            "top1": 100 * float(np.mean(self.rank < 1)),
            "top5": 100 * float(np.mean(self.rank < 5)),
            "nll": float(np.mean(self.nll, dtype=np.float64)),
            "n": len(self.rank),
        }


def collect(
    scores: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]],
    dataset: data.Dataset,
    what: str,
    report: Callable[[str], None] | None = None,
) -> Predictions:
    """Puts scores in the order of their examples.

    Args:
      scores: pairs of indices (b,), -1 for padding, and the arrays of `Predictions` by name, (b,).
      dataset: the data set that was evaluated.
      what: the name of the evaluation, for the error and the report.
      report: called with a sentence about the progress, every half minute.

    Raises:
      ValueError: a score is missing or not finite.
    """
    predictions = Predictions(
        rank=np.full(len(dataset), -1, np.int32),
        nll=np.full(len(dataset), np.nan, np.float32),
        predicted=np.full(len(dataset), -1, np.int32),
        lead=np.full(len(dataset), np.nan, np.float32),
    )
    started = reported = time.monotonic()
    done = before = 0  # the first batch includes compilation, so the rate excludes it
    for index, arrays in scores:
        real = index >= 0
        for name, array in arrays.items():
            getattr(predictions, name)[index[real]] = array[real]
        done += int(real.sum())
        parallel.note_progress(f"{what}, {done} of {len(dataset)} examples")
        now = time.monotonic()
        if not before:
            started, before = now, done
        elif report is not None and now - reported > REPORT_EVERY:
            rate = (done - before) / (now - started)
            report(how_far(what, done, len(dataset), rate))
            reported = now
    if not np.isfinite(predictions.nll).all():
        culprit = int(np.flatnonzero(~np.isfinite(predictions.nll))[0])
        raise ValueError(
            f"the logits of example {culprit} of {dataset.name}'s split {dataset.split!r} are not "
            f"finite ({what}); check the weights and the noise's strength"
        )
    return predictions


def how_far(what: str, done: int, total: int, rate: float) -> str:
    """Returns a sentence: how many examples are done, how many per second, and the time left."""
    left = datetime.timedelta(seconds=round((total - done) / rate))
    return f"{what}: {done} of {total} examples, {rate:.1f} examples/s, {left} left"


def fetch_behind(results: Iterable[Any]) -> Iterator[Any]:
    """Fetches each result from the devices while they compute the next."""
    waiting = collections.deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > 1:
            yield jax.device_get(waiting.popleft())
    yield from map(jax.device_get, waiting)


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """Returns the log of the sum of exponentials, (n, classes) to (n,), in the logits' dtype.

    It takes a quarter of the time of SciPy's function, without its options: a large audit needs
    billions of exponentials.
    """
    return np.concatenate([_log_sum_exp(logits[rows])[1] for rows in _parts(logits)])


def _parts(logits: np.ndarray) -> Iterator[slice]:
    """Yields slices of the rows of logits (n, classes) to score at once."""
    size = max(1, _AT_ONCE // logits.shape[1])
    yield from (slice(start, start + size) for start in range(0, len(logits), size))


def _log_sum_exp(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the class of the largest logit, `log_sum_exp`, and the logit's lead, (n,) each."""
    top = logits.argmax(axis=1)[:, None]
    largest = np.take_along_axis(logits, top, axis=1)
    rest = logits - largest
    np.exp(rest, out=rest)
    np.put_along_axis(rest, top, 0, axis=1)  # added to its 1, small terms would be lost
    with np.errstate(divide="ignore"):
        lead = -np.log(rest.max(axis=1))
    return top[:, 0], largest[:, 0] + np.log1p(rest.sum(axis=1)), lead


def _rank(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts the classes ahead of the true one: logits (n, classes), labels (n,), to (n,).

    Ties count as in argmax; NaN counts as ahead.
    """
    labels = labels[:, None]
    true = np.take_along_axis(logits, labels, axis=1)
    rank = logits.shape[1] - np.count_nonzero(logits <= true, axis=1)
    equal = logits == true
    if np.count_nonzero(equal, axis=1).max(initial=0) > 1:  # more than the true class itself
        rank += np.count_nonzero(equal & (np.arange(logits.shape[1]) < labels), axis=1)
    return rank


def score_logits(logits: jax.Array, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the arrays of `Predictions`, (b,).

    Args:
      logits: (b, classes).
      batch: a batch with the targets of `data.Dataset.targets`.
    """
    label_sets = batch.get("label_set")
    labels, members = preferred_labels(jnp, logits, batch["label"], label_sets)
    labels = labels[:, None]
    true = jnp.take_along_axis(logits, labels, axis=1)
    classes = jnp.arange(logits.shape[1], dtype=labels.dtype)
    # Must count as `_rank` does.
    ahead = ~(logits <= true) | ((logits == true) & (classes < labels))
    likelihood = members[:, 0] if label_sets is None else jax.nn.logsumexp(members, axis=1)
    nll = jax.nn.logsumexp(logits, axis=1) - likelihood
    predicted = logits.argmax(axis=1)
    second = jnp.where(classes == predicted[:, None].astype(classes.dtype), -jnp.inf, logits).max(
        axis=1
    )
    return {
        "rank": ahead.sum(axis=1),
        "nll": nll,
        "predicted": predicted,
        "lead": logits.max(axis=1) - second,
    }
