"""The predictions of a model for each example of a test set, collected batch by batch."""

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

REPORT_EVERY = 30.0  # seconds between two sentences about the progress


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions of a model for each example, in the order of the data set.

    Attributes:
      rank: (n,) int32, how many classes the model prefers to the true one; 0 if top-1 is correct.
        Of an image with several labels the one counts that it prefers among them.
      nll: (n,) float32, negative log-likelihood of the true class, or of any of them, in nats.
      predicted: (n,) int32, the class with the largest logit.
    """

    rank: np.ndarray
    nll: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(
        cls, logits: np.ndarray, labels: np.ndarray, label_sets: np.ndarray | None = None
    ) -> "Predictions":
        """Predictions from logits (n, classes), labels (n,) and perhaps sets of them (n, k)."""
        labels = np.asarray(labels)
        found = _score(np, scipy.special.logsumexp, np.asarray(logits), labels, label_sets)
        types = {"rank": np.int32, "nll": np.float32, "predicted": np.int32}
        return cls(**{name: array.astype(types[name]) for name, array in found.items()})

    def summary(self) -> dict[str, float | int]:
        """``top1`` and ``top5`` in percent, mean ``nll``, and ``n``."""
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
      dataset: of the indices.
      what: what was evaluated, for the error and the report.
      report: takes a sentence about the progress, every half minute.

    Raises:
      ValueError: a score is missing or not finite.
    """
    found = Predictions(
        rank=np.full(len(dataset), -1, np.int32),
        nll=np.full(len(dataset), np.nan, np.float32),
        predicted=np.full(len(dataset), -1, np.int32),
    )
    started = reported = time.monotonic()
    done = before = 0  # the first batch, which is compiled, says nothing about the others
    for index, arrays in scores:
        real = index >= 0
        for name, array in arrays.items():
            getattr(found, name)[index[real]] = array[real]
        done += int(real.sum())
        parallel.note_progress(f"{what}, {done} of {len(dataset)} examples")
        now = time.monotonic()
        if not before:
            started, before = now, done
        elif report is not None and now - reported > REPORT_EVERY:
            rate = (done - before) / (now - started)
            report(how_far(what, done, len(dataset), rate))
            reported = now
    if not np.isfinite(found.nll).all():
        culprit = int(np.flatnonzero(~np.isfinite(found.nll))[0])
        raise ValueError(
            f"the logits of example {culprit} of {dataset.name}'s split {dataset.split!r} are not "
            f"finite ({what}); the weights, or the noise's strength, are at fault"
        )
    return found


def how_far(what: str, done: int, total: int, rate: float) -> str:
    """A sentence: how many examples are done, how many per second, and the time that is left."""
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


def score_logits(logits: jax.Array, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The arrays of `Predictions`, (b,).

    Args:
      logits: (b, classes).
      batch: with the targets of `data.Dataset.targets`.
    """
    return _score(jnp, jax.nn.logsumexp, logits, batch["label"], batch.get("label_set"))


def _score(
    xp: Any, logsumexp: Callable, logits: Any, labels: Any, label_sets: Any
) -> dict[str, Any]:
    """`score_logits` with NumPy, which does not compile for each shape, or with JAX."""
    labels, members = preferred_labels(xp, logits, labels, label_sets)
    labels = labels[:, None]
    true = xp.take_along_axis(logits, labels, axis=1)
    classes = xp.arange(logits.shape[1], dtype=labels.dtype)
    # Ties count as in argmax; a logit that is not a number is never smaller.
    ahead = ~(logits <= true) | ((logits == true) & (classes < labels))
    likelihood = true[:, 0] if label_sets is None else logsumexp(members, axis=1)
    nll = logsumexp(logits, axis=1) - likelihood
    return {"rank": ahead.sum(axis=1), "nll": nll, "predicted": logits.argmax(axis=1)}
