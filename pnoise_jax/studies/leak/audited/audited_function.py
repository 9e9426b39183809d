"""Any function of a batch under audit: examples (b, ...) to logits (b, classes)."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.counting import counted
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.checks.independence import largest_change, largest_distance


class AuditedFunction:
    """A function, the same function without noise, and examples."""

    def __init__(
        self,
        apply: Callable[[np.ndarray], np.ndarray],
        clean: Callable[[np.ndarray], np.ndarray] | None,
        inputs: np.ndarray,
        labels: np.ndarray,
        *,
        seed: int,
        batch_size: int,
        classes: int | None = None,
        label_sets: np.ndarray | None = None,
    ):
        """Stores the functions and the examples.

        Args:
          apply: examples (b, ...) to logits (b, classes).
          clean: the same function without noise; if None, ``apply`` is called on one example at a
            time.
          inputs, labels: the examples, (n, ...) and (n,).
          seed: the seed of the model, as in `Audited`.
          batch_size: batch size of the clean evaluation.
          classes: the expected number of logits; None accepts any number.
          label_sets: all correct labels of each example, (n, k), padded with -1.
        """
        self.seed = seed
        # A mean of indices, tokens or words would be another example, or would mean nothing.
        picture = inputs.dtype == np.uint8 and inputs.ndim > 2
        self.blank = len(labels) if picture or inputs.dtype.kind == "f" else None
        self._apply, self._clean_apply = apply, clean
        self._inputs, self._labels = inputs, labels
        self._label_sets = label_sets
        self._last_label = int(max(labels.max(), -1 if label_sets is None else label_sets.max()))
        self._batch_size = batch_size
        self._classes = classes
        self._first: tuple[np.ndarray, np.ndarray] | None = None  # rows and logits of apply

    def clean(self) -> tuple[np.ndarray, evaluation.Predictions]:
        order = np.arange(len(self._labels))
        apply, batch_size, what = self._clean_apply, self._batch_size, "clean"
        if apply is None:
            apply, batch_size, what = self._apply, 1, "apply, one example at a time,"
        logits = np.empty((0, 0), np.float32)
        for rows, part in self._parts(apply, order, batch_size, what):
            if not logits.size:
                logits = np.empty((len(order), part.shape[1]), np.float32)
            logits[rows] = part
        return logits, evaluation.Predictions.of(logits, self._labels, self._label_sets)

    def clean_change(self) -> tuple[float, int] | None:
        if self._clean_apply is None:
            return None
        count = min(len(self._labels), self._batch_size)
        rows = np.linspace(0, len(self._labels) - 1, count).round().astype(int)
        examples = self._inputs[rows]
        if np.array_equal(examples, np.roll(examples, -1, axis=0)):
            others = (self._inputs != examples[0]).reshape(len(self._inputs), -1).any(axis=1)
            if not others.any():  # all examples are equal
                return 0.0, count
            examples[0] = self._inputs[others.argmax()]
        return largest_change(self._clean_apply, examples).size, count

    def predict(
        self, audited: AuditedNoise, order: np.ndarray, batch_size: int, seed: int
    ) -> evaluation.Predictions:
        del audited, seed
        batches = self._parts(self._apply, order, batch_size, "apply")
        return evaluation.Predictions.of_batches(batches, self._labels, self._label_sets)

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        examples = self._inputs[np.minimum(rows, len(self._labels) - 1)]
        if self.blank is not None and np.any(rows == self.blank):
            examples[rows == self.blank] = self._mean_example
        return examples

    @functools.cached_property
    def _mean_example(self) -> np.ndarray:
        return self._inputs.mean(axis=0).astype(self._inputs.dtype)

    def batch_function(
        self, audited: AuditedNoise, seed: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        del audited, seed
        return lambda examples: self._call(self._apply, examples, "apply")

    def drift(self) -> float:
        if self._first is None:
            return 0.0
        rows, logits = self._first
        again = self._call(self._apply, self._inputs[rows], "apply")
        return largest_distance(again, logits.astype(np.float64))

    def logits_of_batches(
        self, audited: AuditedNoise, batches: np.ndarray, seed: int
    ) -> np.ndarray:
        apply = self.batch_function(audited, seed)
        return np.stack([apply(self.inputs(batch)) for batch in batches])

    def require_resumable(self, audited: AuditedNoise, batch_size: int) -> None:
        """A function always starts from its inputs, so there is nothing to check."""

    def _parts(
        self, apply: Callable, order: np.ndarray, batch_size: int, what: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the indices (b,) and the logits (b, classes) of each batch of an order."""
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            partial = " (the last, partial batch)" if len(rows) < batch_size else ""
            part = self._call(apply, self._inputs[rows], what, partial)
            if not np.isfinite(part.min()):  # a finite minimum suffices: the largest logit is 0
                culprit = rows[int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])]
                raise ValueError(
                    f"{what} returned logits that are not finite for example {culprit}, in a batch "
                    f"of {len(rows)} with examples {_listed(rows)}{partial}; leave it out, or fix "
                    "the function; a mask must be finite, such as -1e9"
                )
            if self._first is None and apply is self._apply:
                self._first = rows, part.copy()
            yield rows, part

    def _call(
        self, apply: Callable, examples: np.ndarray, what: str, where: str = ""
    ) -> np.ndarray:
        """Returns the logits of one batch, float32, after checking their shape."""
        count = len(examples)
        try:
            logits = _as_logits(apply(examples))
        except Exception as error:
            fix = "give a function that accepts batches of any size"
            if count == 1 and self._clean_apply is None:
                fix = "give clean=, the model without noise or with its batch statistics frozen"
            raise ValueError(
                f"{what} failed on a batch of {count}{where}: {type(error).__name__}: {error}; "
                f"{fix}"
            ) from error
        self._check(logits, count, what, where)
        return logits

    def _check(self, logits: np.ndarray, count: int, what: str, where: str) -> None:
        expected = (count, self._classes or "classes")
        known = logits.shape[1:] == (self._classes,) or (self._classes is None and logits.ndim == 2)
        if len(logits.shape) != 2 or len(logits) != count or not known:
            raise ValueError(
                f"{what} returned an array of shape {logits.shape} for a batch of {count}{where}; "
                f"expected logits ({expected[0]}, {expected[1]})"
            )
        self._classes = logits.shape[1]
        if self._last_label >= self._classes:
            one = "; of two classes, give both: np.concatenate([-z, z], axis=1) for the logit z"
            raise ValueError(
                f"label {self._last_label}: {what} returns {counted(self._classes, 'logit')}"
                + one * (self._classes == 1)
            )


def _listed(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:10]))
    return f"{shown}, …" if len(rows) > 10 else shown


def _as_logits(outputs: np.ndarray) -> np.ndarray:
    """Converts outputs (b, classes) to single precision, relative to each example's largest logit.

    A softmax or a ranking ignores a large offset that all logits of an example share, but rounding
    to single precision with that offset would lose the differences between classes.
    """
    logits = np.asarray(outputs)
    if logits.dtype.kind == "c":
        raise TypeError(f"the outputs are {logits.dtype}, which have no order: give real numbers")
    if logits.dtype != np.float32:  # differences of float32 are rounded once, either way
        logits = logits.astype(np.float64)
    if logits.ndim == 2 and logits.size:
        with np.errstate(invalid="ignore"):  # inf - inf: reported by the callers as not finite
            logits = logits - logits.max(axis=1, keepdims=True)
    return logits.astype(np.float32, copy=False)
