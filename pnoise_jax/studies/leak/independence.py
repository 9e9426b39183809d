"""Does a prediction depend on the other examples of its batch? A test for any model."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Change:
    """The largest change that other batch mates made.

    Attributes:
      size: of a logit, absolute; 0 where nothing changed.
      example: whose logit it is.
      logits: that example's logits beside its own mates, (classes,).
      others: and beside others, (classes,).
    """

    size: float
    example: int
    logits: np.ndarray
    others: np.ndarray


def largest_change(apply: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> Change:
    """How much the outputs for examples change when the examples beside them are others.

    In each of ``2 ceil(log2 b)`` further calls some examples stay in place while all others give
    way to their successors. Which stay is told by one binary digit of their number. Any two numbers
    differ in a digit, so each example is seen with every one of its mates replaced.

    Args:
      apply: a function of a batch: (b, ...) to (b, ...), deterministic.
      x: the batch, (b, ...), at least two examples, not all alike.

    Raises:
      ValueError: fewer than two examples, all alike, or outputs that are not (b, ...) or finite.
    """
    x = np.asarray(x)
    if x.ndim == 0 or len(x) < 2:
        raise ValueError(f"x has shape {x.shape}; give a batch of at least two examples")
    successors = np.roll(x, -1, axis=0)
    if np.array_equal(x, successors):
        raise ValueError("all examples of x are alike; give different ones")
    reference = _outputs(apply, x)
    largest = Change(0.0, 0, reference[0], reference[0])
    numbers = np.arange(len(x))
    for digit in range((len(x) - 1).bit_length()):
        for value in (0, 1):
            stay = (numbers >> digit) & 1 == value
            changed = x.copy()
            changed[~stay] = successors[~stay]
            found = _outputs(apply, changed)
            distance = np.abs(found - reference).reshape(len(x), -1).max(axis=1)
            distance[~stay] = 0
            example = int(distance.argmax())
            if distance[example] > largest.size:
                size = float(distance[example])
                largest = Change(size, example, reference[example], found[example])
    return largest


def assert_independent_of_batch(
    apply: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Fails if what ``apply`` makes of an example depends on the other examples of its batch.

    A test helper, for any model: batch statistics in training mode, noise that mixes examples, or a
    wrong reshape fail it.

    Args:
      apply: a function of a batch, (b, ...) to (b, ...): logits or anything else; deterministic.
      x: a batch, (b, ...), of at least two examples.
      rtol: allowed change relative to the largest output, for what compilers round differently.
      atol: allowed change on top.

    Raises:
      AssertionError: with the example, by how much it changed, and of its 64 nearest mates the one
        that matters most by itself.
      ValueError: as `largest_change`.
    """
    x = np.asarray(x)
    change = largest_change(apply, x)
    outputs = _outputs(apply, x)
    allowed = atol + rtol * float(np.abs(outputs).max())
    if change.size <= allowed:
        return
    again = float(np.abs(_outputs(apply, x) - outputs).max())
    if again > allowed:
        raise ValueError(
            f"apply is not deterministic: two calls with the same batch differ by {again:.3g}; fix "
            "its random key"
        )
    mate, size = _most_influential_mate(apply, x, change.example)
    flat, others = change.logits.ravel(), change.others.ravel()
    place = int(np.abs(flat - others).argmax())
    raise AssertionError(
        f"example {change.example} depends on its batch: with other examples beside it, output "
        f"{place} went from {flat[place]:.6g} to {others[place]:.6g} (allowed: {allowed:.2g}). "
        f"Replacing example {mate} alone changes it by {size:.3g}. Evaluate with batch "
        "statistics frozen and without noise that mixes examples"
    )


def _most_influential_mate(apply, x: np.ndarray, example: int) -> tuple[int, float]:
    """The mate whose replacement changes the example most, of the 64 nearest, and by how much."""
    reference = _outputs(apply, x)[example]
    distance_to = np.abs(np.arange(len(x)) - example)
    mates = [int(mate) for mate in np.argsort(distance_to, kind="stable")[1:65]]
    sizes = []
    for mate in mates:
        changed = x.copy()
        changed[mate] = x[(mate + 1) % len(x)]
        sizes.append(float(np.abs(_outputs(apply, changed)[example] - reference).max()))
    best = int(np.argmax(sizes))
    return mates[best], sizes[best]


def _outputs(apply, x: np.ndarray) -> np.ndarray:
    outputs = np.asarray(apply(x), np.float64)
    if outputs.ndim == 0 or len(outputs) != len(x):
        raise ValueError(
            f"apply gave an array of shape {outputs.shape} for a batch of {len(x)}; expected one "
            "output for each example"
        )
    if not np.isfinite(outputs).all():
        raise ValueError("apply gave outputs that are not finite")
    return outputs
