"""Whether predictions depend on the other examples of a batch: checked exactly, not estimated.

Two checks. The direct one replaces the mates in batches of the test set and compares logits bit for
bit, up to rounding. The other compares every example's prediction in all orders that were scored:
where none differs, no accuracy in any of these orders can differ.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from pnoise_jax.studies.leak.checks.independence import largest_change, largest_distance
from pnoise_jax.studies.leak.checks.orders import CLASS_SORTED, SHUFFLED
from pnoise_jax.studies.leak.checks.scores import OrderChange

SAME_SHAPE = 1e-6  # rounding of logits in a batch of the same shape, relative to the largest
OTHER_PLACE = 1e-4  # and if the example has another position in the batch


@dataclasses.dataclass(frozen=True)
class Dependence:
    """What the checks found.

    Attributes:
      deterministic: whether calls with the same batch gave the same logits, at once and later.
      largest_change: of a logit when its example's mates were replaced, absolute.
      allowed: what rounding may make of it.
      batches: of the direct check.
      examples: whose predictions were compared in all orders, in each model.
      orders: how many orders those were.
      changed: how many predictions differed between orders, of the most in one kind.
      differs: whether anything but rounding differed between orders.
      differs_by_size: whether it differed between batch sizes, an example alone among them.
    """

    deterministic: bool
    largest_change: float
    allowed: float
    batches: int
    examples: int = 0
    orders: int = 0
    changed: int = 0
    differs: bool = False
    differs_by_size: bool = False

    @property
    def independent(self) -> bool:
        """Whether nothing depended on anything but the example itself."""
        fixed = self.largest_change <= self.allowed and not self.differs and not self.changed
        return self.deterministic and fixed and not self.differs_by_size and self.batches > 0

    @classmethod
    def over_seeds(cls, by_seed: list["Dependence"]) -> "Dependence":
        """The worst of all seeds; the batches that were tried are added up."""
        worst = max(by_seed, key=lambda d: d.largest_change / max(d.allowed, 1e-30))
        return dataclasses.replace(
            worst,
            deterministic=all(d.deterministic for d in by_seed),
            batches=sum(d.batches for d in by_seed),
            changed=sum(d.changed for d in by_seed),
            differs=any(d.differs for d in by_seed),
            differs_by_size=any(d.differs_by_size for d in by_seed),
        )


def check_batches(
    inputs: Callable[[np.ndarray], np.ndarray],
    apply: Callable[[np.ndarray], np.ndarray],
    by_kind: dict[str, list[np.ndarray]],
    batch_size: int,
) -> Dependence:
    """Replaces mates in whole batches from random orders and from class order.

    Args:
      inputs: indices (b,) to examples (b, ...).
      apply: examples (b, ...) to logits (b, classes).
      by_kind: orders by kind.
      batch_size: of the protocol.

    Raises:
      ValueError: logits that are not finite, be it in one of the calls only.
    """
    largest, allowed, count = 0.0, 0.0, 0
    before = None
    for rows in _choose_batches(by_kind, batch_size):
        x = inputs(rows)
        # Copies, as a function may change its argument.
        logits = np.asarray(apply(x.copy()), np.float64)
        allowed = max(allowed, SAME_SHAPE * logit_scale(logits))
        repeated = largest_distance(apply(x.copy()), logits)
        alike = np.array_equal(x, np.roll(x, -1, axis=0))  # then no mate can be told from another
        if repeated <= allowed and not alike:
            largest = max(largest, largest_change(apply, x, logits).size)
            count += 1
        if before is not None:
            repeated = max(repeated, largest_distance(apply(before[0].copy()), before[1]))
        if repeated == np.inf:
            raise ValueError(
                "apply gave finite logits for a batch in one call, and others in another call with "
                "the same batch: look for what it keeps from call to call"
            )
        if repeated > allowed:
            return Dependence(False, repeated, allowed, count)
        before = x, logits
    return Dependence(True, largest, allowed, count)


def logit_scale(logits: np.ndarray) -> float:
    """How far the likelier classes of an example lie apart; masked classes do not count."""
    ordered = np.sort(logits, axis=1)[:, -5:]
    return float(np.median(ordered[:, -1:] - ordered[:, :-1])) if logits.shape[1] > 1 else 0.0


def _choose_batches(by_kind: dict[str, list[np.ndarray]], batch_size: int) -> list[np.ndarray]:
    """The first batches of three random orders, and three batches over the class order."""
    class_order = by_kind[CLASS_SORTED][0]
    last = len(class_order) // batch_size - 1
    starts = batch_size * np.unique(np.linspace(0, last, 3).round().astype(int))
    return [order[:batch_size] for order in by_kind[SHUFFLED][:3]] + [
        class_order[start : start + batch_size] for start in starts
    ]


def compare_orders(dependence: Dependence, changes: list[OrderChange]) -> Dependence:
    """Adds what a comparison of all orders found."""
    return dataclasses.replace(
        dependence,
        examples=min(change.examples for change in changes),
        orders=sum(change.orders for change in changes),
        changed=max(change.predictions for change in changes),
        differs=any(c.nll > OTHER_PLACE * max(1.0, c.scale) for c in changes),
    )
