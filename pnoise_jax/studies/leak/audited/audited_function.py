"""Anybody's function of a batch under audit: examples (b, ...) to logits (b, classes)."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.checks.independence import largest_change


class AuditedFunction:
    """A function, the same without noise, and examples."""

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
        """Takes the functions, the inputs (n, ...) and labels (n,).

        Args:
          apply, clean: ``clean`` is the same without noise; None shows ``apply`` one example at a
            time.
          inputs, labels: of the examples.
          seed: of the audit's random orders.
          batch_size: of the clean evaluation.
          classes: how many logits there must be; None takes as many as there are.
          label_sets: (n, k) of examples with several labels, padded by -1, all correct.
        """
        self.seed = seed
        # A mean of indices, tokens or words would be another example, or nothing at all.
        picture = inputs.dtype == np.uint8 and inputs.ndim > 2
        self.blank = len(labels) if picture or inputs.dtype.kind == "f" else None
        self._apply, self._clean_apply = apply, clean
        self._inputs, self._labels = inputs, labels
        self._label_sets = label_sets
        self._last_label = int(max(labels.max(), -1 if label_sets is None else label_sets.max()))
        self._batch_size = batch_size
        self._classes = classes

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
            if not others.any():  # no example can be told from another
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

    def logits_of_batches(
        self, audited: AuditedNoise, batches: np.ndarray, seed: int
    ) -> np.ndarray:
        apply = self.batch_function(audited, seed)
        return np.stack([apply(self.inputs(batch)) for batch in batches])

    def require_resumable(self, audited: AuditedNoise, batch_size: int) -> None:
        """A function is always called from its inputs on."""

    def _parts(
        self, apply: Callable, order: np.ndarray, batch_size: int, what: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The examples (b,) of each batch of an order, and their logits (b, classes)."""
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            partial = " (the last, partial batch)" if len(rows) < batch_size else ""
            part = self._call(apply, self._inputs[rows], what, partial)
            if not np.isfinite(part.min()):  # the largest logits are 0, where they are finite
                culprit = rows[int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])]
                raise ValueError(
                    f"{what} gave logits that are not finite for example {culprit}, in a batch of "
                    f"{len(rows)} with examples {_listed(rows)}{partial}; leave it out, or fix "
                    "the function; a mask must be finite, such as -1e9"
                )
            yield rows, part

    def _call(
        self, apply: Callable, examples: np.ndarray, what: str, where: str = ""
    ) -> np.ndarray:
        """The logits of one batch, float32; their shape is checked."""
        count = len(examples)
        try:
            logits = _as_logits(apply(examples))
        except Exception as error:
            fix = "give a function that takes batches of any size"
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
                f"{what} gave an array of shape {logits.shape} for a batch of {count}{where}; "
                f"expected logits ({expected[0]}, {expected[1]})"
            )
        self._classes = logits.shape[1]
        if self._last_label >= self._classes:
            raise ValueError(f"label {self._last_label}: {what} gives {self._classes} logits")


def _listed(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:10]))
    return f"{shown}, …" if len(rows) > 10 else shown


def _as_logits(outputs: np.ndarray) -> np.ndarray:
    """Outputs (b, classes) in single precision, which is taken around the largest logit of each.

    A softmax ignores what all logits of an example share, and so does a ranking: single precision
    would keep that, and lose what tells classes apart.
    """
    logits = np.asarray(outputs)
    if logits.dtype != np.float32:  # whose differences are rounded once, either way
        logits = logits.astype(np.float64)
    if logits.ndim == 2 and logits.size:
        with np.errstate(invalid="ignore"):  # inf - inf: reported by the callers as not finite
            logits = logits - logits.max(axis=1, keepdims=True)
    return logits.astype(np.float32, copy=False)
