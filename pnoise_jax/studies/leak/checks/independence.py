"""A test for any model: does a prediction depend on the other examples of its batch?"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pnoise_jax.counting import counted
from pnoise_jax.studies.leak.audited.examples import Examples, is_loader, read_batch, read_batches
from pnoise_jax.studies.leak.audited.frameworks import as_batch_function

_CAUSES = (
    "Usual causes: batch statistics that are not frozen, noise that mixes examples, attention or a "
    "reshape along the batch axis"
)
_DRAWN = "Noise drawn for a whole batch does this"
_SQUEEZE = " (squeeze() without an axis also drops the batch axis of a batch of one)"
_MATES = 64  # mates to try one by one, to name the one that matters most
_ALONE = 8  # examples of a batch to try alone as well
_ROUNDING = 100  # times rtol, where other kernels round differently: on GPUs to TF32's 11 bits


@dataclasses.dataclass(frozen=True)
class Change:
    """The largest change that other batch mates made.

    Attributes:
      size: of a logit, absolute; 0 where nothing changed.
      example: the number of the example.
      logits: that example's logits with its original mates, (classes,).
      others: its logits with other mates, (classes,).
      replaced: the numbers of the mates that were replaced with their successors.
    """

    size: float
    example: int
    logits: np.ndarray
    others: np.ndarray
    replaced: np.ndarray


def largest_change(apply: Any, x: Any, outputs: np.ndarray | None = None) -> Change:
    """Computes how much the outputs for examples change when their batch mates are replaced.

    In each further call about half of the examples stay in place, and each of the others is
    replaced with its successor. No two examples stay in the same half of the calls, so every
    example is seen with each of its mates replaced. This takes the smallest possible number of
    calls (Sperner, "Ein Satz über Untermengen einer endlichen Menge", 1928): 6 for 16 examples, 11
    for 256.

    Args:
      apply: a deterministic function of a batch, (b, ...) to (b, ...); or a model that
        `assert_independent_of_batch` accepts.
      x: the batch, (b, ...), at least two examples, not all alike; an array of any framework.
      outputs: the outputs for ``x``, if they are known; this saves a call.

    Raises:
      ValueError: fewer than two examples, all examples alike, or outputs that are not (b, ...) or
        not finite, even if only in one of the further batches.
    """
    batch = dataclasses.replace(_Batch.of(apply, read_batch(x, "x")), known=outputs)
    change = _largest_change(batch)
    if not np.isfinite(change.size):
        replaced = ", ".join(map(str, change.replaced[:8])) + ", …" * (len(change.replaced) > 8)
        raise ValueError(
            f"apply returned outputs that are not finite for example {change.example} when the "
            f"examples {replaced} were replaced with their successors, but not in the original "
            "batch"
        )
    return change


def assert_independent_of_batch(
    apply: Any,
    x: Any,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    batches: int = 8,
) -> None:
    """Raises AssertionError if an example's output depends on the other examples of its batch.

    A test helper for a model of any framework. It fails for batch statistics in training mode,
    noise that mixes examples, or a wrong reshape. Each example is evaluated with other mates and in
    another place of the batch, and some of them alone.

    Args:
      apply: a deterministic function of a batch, (b, ...) to (b, ...), which returns logits or any
        other outputs. It may also be a PyTorch or Keras model, which is called in its current mode,
        or a fitted scikit-learn estimator. A function receives arrays of the same kind as ``x``,
        such as PyTorch tensors or NumPy arrays.
      x: a batch, (b, ...), of at least two examples; or a loader of batches, with or without
        labels, as `read_examples` describes.
      rtol: allowed change of each output relative to its largest value in the batch, because
        compilers round differently. A batch of one runs different kernels from a larger batch, and
        may differ by 100 times as much. If all outputs are whole numbers, such as class numbers,
        they must be equal, and may differ by 1 in a batch of one or in another place.
      atol: allowed change in addition to that.
      batches: number of batches to try, the first ones of a loader.

    Raises:
      AssertionError: names the example, how much it changed, and which of its 64 nearest mates
        matters most by itself; or the example that cannot be evaluated alone.
      ValueError: as `largest_change`; the outputs have another shape in a batch of one; the outputs
        of different examples differ by no more than the allowed change, so that no dependence could
        be seen; or ``apply`` is not deterministic.
      TypeError: ``apply``, outputs or examples of an unknown kind.
    """
    for batch in _batches(apply, x, batches):
        _assert_independent(batch, rtol, atol)


def _batches(apply: Any, x: Any, limit: int) -> Iterator["_Batch"]:
    """Yields ``x``, or the first batches of a loader that have different examples."""
    if limit < 1:
        raise ValueError(f"batches={limit}; give at least 1")
    if not is_loader(x):
        yield _Batch.of(apply, read_batch(x, "x"))
        return
    read, tried = 0, 0
    for number, examples in enumerate(itertools.islice(read_batches(x), limit)):
        read = number + 1
        if _has_different_examples(examples.inputs):
            tried += 1
            yield _Batch.of(apply, examples, f"batch {number} of the loader: ")
    if not tried:
        raise ValueError(
            f"the loader gave {counted(read, 'batch', 'batches')}, none with two different "
            "examples; give a loader with a larger batch size"
        )


def _assert_independent(batch: "_Batch", rtol: float, atol: float) -> None:
    # Per output: a masked logit, such as -1e9, must not raise the tolerance of the others.
    largest = np.abs(batch.reference).max(axis=0)
    spread = np.abs(batch.reference - batch.reference[0]).max(axis=0)
    allowed = _allowed(batch, atol, rtol * largest, 0.5)
    _require_visible(batch, spread, allowed)
    change = _largest_change(batch, allowed)
    if change.size > 1:
        _check_deterministic(batch, batch.numbers, batch.reference, allowed)
        raise AssertionError(
            f"{batch.where}example {change.example} depends on its batch: with other batch mates, "
            f"output {_went(change.logits, change.others, allowed)}. "
            f"{_most_influential_mate(batch, change.example)}. {_CAUSES}"
        )
    # In other kernels a small output has the rounding errors of its larger neighbours.
    usual = np.median(spread[spread > 0])
    allowed = _allowed(batch, atol, _ROUNDING * rtol * np.maximum(largest, usual), 1.5)
    moved = np.roll(batch.numbers, 1)  # the same batch mates, but each in another place
    outputs = batch.outputs(moved)
    distances = _distances(outputs, batch.reference[moved], allowed)
    if distances.max() > 1:
        i = int(distances.argmax())
        _check_deterministic(batch, batch.numbers, batch.reference, allowed)
        raise AssertionError(
            f"{batch.where}example {moved[i]} depends on its place in the batch: moved by one "
            f"place, output {_went(batch.reference[moved[i]], outputs[i], allowed)}. {_DRAWN}"
        )
    for example in sorted({round(place) for place in np.linspace(0, len(batch.x) - 1, _ALONE)}):
        alone = _alone(batch, example)
        if _distances(alone, batch.reference[[example]], allowed)[0] > 1:
            _check_deterministic(batch, batch.numbers, batch.reference, allowed)
            _check_deterministic(batch, np.array([example]), alone, allowed)
            raise AssertionError(
                f"{batch.where}example {example} depends on the size of its batch or its place in "
                "it, or on its batch mates in a way that exchanging some of them did not show: "
                f"alone, output {_went(batch.reference[example], alone[0], allowed)}. Usual "
                "causes: padding to the longest example of a batch, noise drawn for a whole batch"
            )


def _allowed(batch: "_Batch", atol: float, relative: np.ndarray, most: float) -> np.ndarray:
    """The allowed change of each output; ``most`` limits the relative part of whole numbers.

    Whole numbers may be class numbers: the relative part would excuse any change to a class nearby.
    """
    if np.array_equal(batch.reference, np.round(batch.reference)):
        relative = np.minimum(relative, most)
    return np.maximum(atol + relative, np.finfo(np.float64).tiny)


def _require_visible(batch: "_Batch", spread: np.ndarray, allowed: np.ndarray) -> None:
    """Raises ValueError unless examples differ by more than is allowed, in some output."""
    if np.any(spread > allowed):
        return
    if not spread.any():
        raise ValueError(
            f"{batch.where}apply returns the same outputs for all {len(batch.x)} examples, so none "
            "can be seen to depend on its batch; an untrained head of zeros does this: give it "
            "random weights, or test the features before it"
        )
    raise ValueError(
        f"{batch.where}the outputs of different examples differ by at most {spread.max():.3g}, and "
        f"rounding may change them by {allowed.flat[spread.argmax()]:.3g}, so no dependence can be "
        "seen: give a smaller rtol and atol, or subtract what all outputs have in common"
    )


def _largest_change(batch: "_Batch", unit: np.ndarray | float = 1.0) -> Change:
    """Computes `largest_change`, with each output measured in its unit."""
    numbers, reference = batch.numbers, batch.reference
    largest, stayed = Change(0.0, 0, reference[0], reference[0], numbers[:0]), True
    for stay in _who_stays(len(numbers)):
        rows = np.where(stay, numbers, np.roll(numbers, -1))
        outputs = batch.outputs(rows)
        distances = _distances(outputs, reference[rows], unit)
        distances[~stay & np.isfinite(distances)] = 0  # a replaced example must only be finite
        i = np.lexsort((-numbers, stay, distances))[-1]  # of equal distances, the first that stayed
        if (distances[i], stay[i]) > (largest.size, stayed):
            size, example, stayed = float(distances[i]), int(rows[i]), stay[i]
            largest = Change(size, example, reference[example], outputs[i], numbers[~stay])
    return largest


def _who_stays(b: int) -> np.ndarray:
    """Which of b examples stay in each call, (calls, b): no two stay in the same calls."""
    calls = next(n for n in itertools.count(2) if math.comb(n, n // 2) >= b)
    halves = list(itertools.combinations(range(calls), calls // 2))
    stay = np.zeros((calls, b), bool)
    for example, half in enumerate(np.linspace(0, len(halves) - 1, b).round().astype(int)):
        stay[list(halves[half]), example] = True
    return stay


def _most_influential_mate(batch: "_Batch", example: int) -> str:
    """Says which of the nearest mates changes the example most if replaced, and by how much."""
    numbers = batch.numbers
    nearest = np.argsort(np.abs(numbers - example), kind="stable")[1 : _MATES + 1]
    sizes = []
    for mate in nearest:
        outputs = batch.outputs(np.where(numbers == mate, np.roll(numbers, -1), numbers))
        sizes.append(float(_distances(outputs, batch.reference)[example]))
    best = int(np.argmax(sizes))
    if not sizes[best]:
        if len(nearest) == 1:
            return "Replacing its only mate alone does not change it"
        return f"None of its {len(nearest)} nearest mates changes it by itself"
    return f"Replacing example {nearest[best]} alone changes it by {sizes[best]:.3g}"


def _alone(batch: "_Batch", example: int) -> np.ndarray:
    """Returns the outputs of an example in a batch of one, (1, ...)."""
    try:
        outputs = batch.apply(batch.x[[example]])
    except Exception as error:
        raise AssertionError(
            f"{batch.where}example {example} depends on its batch: apply accepts it with "
            f"{counted(len(batch.x) - 1, 'other')}, but not alone ({type(error).__name__}: "
            f"{error}). {_CAUSES}; a function compiled for one batch size needs a wrapper that pads"
        ) from error
    return batch.checked(outputs, 1)


def _check_deterministic(
    batch: "_Batch", rows: np.ndarray, outputs: np.ndarray, allowed: np.ndarray
) -> None:
    repeated = batch.outputs(rows)
    if _distances(repeated, outputs, allowed).max() > 1:
        again = _distances(repeated, outputs).max()
        raise ValueError(
            f"{batch.where}apply is not deterministic: two calls with the same batch differ by "
            f"{again:.3g}; fix its random key or seed, or turn off its dropout"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    """A batch under test, and the function that is tested on it.

    Attributes:
      apply: (b, ...) to (b, ...).
      x: (n, ...).
      where: how an error begins.
      known: the outputs of the batch, if they are known.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    x: np.ndarray
    where: str = ""
    known: np.ndarray | None = None

    @classmethod
    def of(cls, apply: Any, examples: Examples, where: str = "") -> "_Batch":
        x = examples.inputs
        if len(x) < 2:
            raise ValueError(f"x has shape {x.shape}; give a batch of at least two examples")
        if not _has_different_examples(x):
            raise ValueError("all examples of x are alike; give different ones")
        return cls(as_batch_function(apply, examples.wrap), x, where)

    @property
    def numbers(self) -> np.ndarray:
        """The numbers of the examples, (n,)."""
        return np.arange(len(self.x))

    @functools.cached_property
    def reference(self) -> np.ndarray:
        """The outputs of the original batch, (n, ...), which are finite."""
        outputs = self.apply(self.x.copy()) if self.known is None else self.known
        outputs = _as_outputs(outputs, len(self.x), self.where)
        finite = np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{self.where}apply returned outputs that are not finite for example "
                f"{finite.argmin()}, in the original batch"
            )
        return outputs

    def outputs(self, rows: np.ndarray) -> np.ndarray:
        """Returns the outputs of the examples ``rows``, (b,), as one batch: (b, ...)."""
        return self.checked(self.apply(self.x[rows]), len(rows))

    def checked(self, outputs: np.ndarray, size: int) -> np.ndarray:
        """Checks that ``size`` examples have outputs of the same shape as in `reference`."""
        outputs = _as_outputs(outputs, size, self.where)
        if outputs.shape[1:] != self.reference.shape[1:]:
            raise ValueError(
                f"{self.where}apply returned outputs of shape {self.reference.shape[1:]} for each "
                f"of {len(self.x)} examples, but of shape {outputs.shape[1:]} in another batch, of "
                f"{size}; the shape must not depend on the batch"
            )
        return outputs


def _as_outputs(outputs: np.ndarray, size: int, where: str) -> np.ndarray:
    """Checks the shape, and returns double precision, so that differences are exact."""
    if outputs.ndim == 0 or len(outputs) != size or not outputs.size:
        raise ValueError(
            f"{where}apply returned an array of shape {outputs.shape} for a batch of {size}; "
            "expected one output for each example" + _SQUEEZE * (size == 1)
        )
    return outputs.astype(np.result_type(outputs, np.float64))


def _has_different_examples(x: np.ndarray) -> bool:
    return len(x) > 1 and not np.array_equal(x, np.roll(x, -1, axis=0))


def largest_distance(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Returns the largest change between two outputs (b, ...); to or from NaN it is infinite."""
    return float(_distances(np.asarray(outputs, np.float64), reference).max())


def _distances(
    outputs: np.ndarray, reference: np.ndarray, unit: np.ndarray | float = 1.0
) -> np.ndarray:
    """Returns the largest change of each example's outputs, (b,); to or from NaN it is infinite.

    Each output is measured in its ``unit``, (...), which is positive.
    """
    same = (outputs == reference) | (np.isnan(outputs) & np.isnan(reference))
    changes = np.abs(np.subtract(outputs, reference, where=~same, out=np.zeros_like(outputs)))
    changes[np.isnan(changes)] = np.inf
    changes = changes / unit
    return changes.reshape(len(outputs), -1).max(axis=1)


def _went(before: np.ndarray, after: np.ndarray, allowed: np.ndarray) -> str:
    """Says which output of an example changed most, and how."""
    before, after, allowed = before.ravel(), after.ravel(), allowed.ravel()
    change = np.where(np.isfinite(after), np.abs(after - before) / allowed, np.inf)
    i = int(change.argmax())
    return f"{i} went from {before[i]:.6g} to {after[i]:.6g} (allowed: {allowed[i]:.2g})"
