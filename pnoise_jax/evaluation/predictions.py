"""What a model made of each example of a test set, put together batch by batch."""

import collections
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from pnoise_jax import data, parallel

REPORT_EVERY = 30.0  # seconds between two sentences on how far it is


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model made of each example, in the data set's order.

    Attributes:
      rank: (n,) int32, how many classes the model prefers to the true one; 0 is a correct top-1.
      nll: (n,) float32, negative log-likelihood of the true class in nats.
      predicted: (n,) int32, the class with the largest logit.
    """

    rank: np.ndarray
    nll: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> "Predictions":
        """From logits (n, classes) and labels (n,)."""
        found = _score(np, special.logsumexp, np.asarray(logits), np.asarray(labels))
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
    """Puts scores at the places of their examples.

    Args:
      scores: pairs of indices (b,), -1 for padding, and the arrays of `Predictions` by name, (b,).
      dataset: of the indices.
      what: was evaluated, for the error and the report.
      report: takes a sentence on how far it is, every half minute.

    Raises:
      ValueError: a score is missing or not finite.
    """
    found = Predictions(
        rank=np.full(len(dataset), -1, np.int32),
        nll=np.full(len(dataset), np.nan, np.float32),
        predicted=np.full(len(dataset), -1, np.int32),
    )
    started = reported = time.monotonic()
    done = before = 0  # the first batch, which is compiled, tells nothing about the others
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
    """A sentence on how many examples are done, how many a second, and how long the rest takes."""
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


def score_logits(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """The arrays of `Predictions`, (b,), from logits (b, classes) and labels (b,)."""
    return _score(jnp, jax.nn.logsumexp, logits, labels)


def _score(xp: Any, logsumexp: Callable, logits: Any, labels: Any) -> dict[str, Any]:
    """The same by NumPy, which has no shapes to compile for, or by JAX."""
    labels = labels[:, None]
    true = xp.take_along_axis(logits, labels, axis=1)
    classes = xp.arange(logits.shape[1], dtype=labels.dtype)
    # Ties as argmax has them; a logit that is not a number is never behind.
    ahead = ~(logits <= true) | ((logits == true) & (classes < labels))
    nll = logsumexp(logits, axis=1) - true[:, 0]
    return {"rank": ahead.sum(axis=1), "nll": nll, "predicted": logits.argmax(axis=1)}
