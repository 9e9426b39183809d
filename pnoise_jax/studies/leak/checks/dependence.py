"""Whether predictions depend on the other examples of a batch: checked exactly, not estimated.

There are two checks. The direct one replaces mates in batches of the test set and compares the
logits, up to rounding. The other compares every example's prediction in all orders that were
scored: if none differs, the accuracy is the same in all of these orders.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from pnoise_jax.studies.leak.checks.independence import largest_change, largest_distance
from pnoise_jax.studies.leak.checks.orders import CLASS_SORTED, SHUFFLED
from pnoise_jax.studies.leak.checks.scores import OrderChange

SAME_SHAPE = 1e-6  # rounding of logits in a batch of the same shape, relative to `logit_scale`
OTHER_PLACE = 1e-4  # rounding of log-likelihoods at another place in the batch, relative


@dataclasses.dataclass(frozen=True)
class Dependence:
    """The results of the checks.

    Attributes:
      deterministic: whether repeated calls with the same batch, at once, after another batch and
        after all orders, returned the same logits.
      largest_change: the largest absolute change of a logit when its example's mates were
        replaced; between calls with the same batch if these differed.
      allowed: the change that rounding may cause.
      batches: number of batches in the direct check.
      examples: number of examples whose predictions were compared in all orders, for each model.
      orders: number of those orders; 0 if the noise differs from batch to batch.
      changed: number of examples predicted differently in some order of one kind, in the kind with
        the most; summed over models.
      differs: whether predictions differed between orders by more than rounding.
      differs_by_size: whether they differed between batch sizes, single examples included.
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
        """Whether each prediction depended on its example alone, as far as was checked.

        Without a comparison of orders this is not known.
        """
        fixed = self.largest_change <= self.allowed and not self.differs and not self.changed
        tried = self.batches > 0 and self.orders > 0
        return self.deterministic and fixed and not self.differs_by_size and tried

    @classmethod
    def over_seeds(cls, by_seed: list["Dependence"]) -> "Dependence":
        """Returns the worst of all seeds; adds up batches and changed examples."""
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
      inputs: a function from indices (b,) to examples (b, ...).
      apply: a function from examples (b, ...) to logits (b, classes).
      by_kind: orders by kind.
      batch_size: batch size of the protocol.

    Raises:
      ValueError: logits are not finite, even if only in one of the calls.
    """
    largest, allowed, count = 0.0, 0.0, 0
    before = None
    for rows in _choose_batches(by_kind, batch_size):
        x = inputs(rows)
        # Pass copies, because a function may change its argument.
        logits = np.asarray(apply(x.copy()), np.float64)
        allowed = max(allowed, SAME_SHAPE * logit_scale(logits))
        repeated = largest_distance(apply(x.copy()), logits)
        alike = np.array_equal(x, np.roll(x, -1, axis=0))  # then replacing mates shows nothing
        if repeated <= allowed and not alike:
            largest = max(largest, largest_change(apply, x, logits).size)
            count += 1
        if before is not None:
            repeated = max(repeated, largest_distance(apply(before[0].copy()), before[1]))
        if repeated == np.inf:
            raise ValueError(
                "apply returned finite logits for a batch in one call, but not in another call "
                "with the same batch: look for state that it keeps from call to call"
            )
        if repeated > allowed:
            return Dependence(False, repeated, allowed, count)
        before = x, logits
    return Dependence(True, largest, allowed, count)


def logit_scale(logits: np.ndarray) -> float:
    """Returns the median lead of the top logit over the next lower one, which is rarely masked.

    Examples whose five largest logits are equal do not count; 0 if there are no others.
    """
    ordered = np.sort(logits, axis=1)[:, -5:]
    leads = ordered[:, -1:] - ordered[:, :-1]
    next_lower = np.where(leads > 0, leads, np.inf).min(axis=1, initial=np.inf)
    counted = next_lower[np.isfinite(next_lower)]
    return float(np.median(counted)) if counted.size else 0.0


def _choose_batches(by_kind: dict[str, list[np.ndarray]], batch_size: int) -> list[np.ndarray]:
    """Returns the first batch of three random orders, and three batches across class order."""
    class_order = by_kind[CLASS_SORTED][0]
    last = len(class_order) // batch_size - 1
    starts = batch_size * np.unique(np.linspace(0, last, 3).round().astype(int))
    return [order[:batch_size] for order in by_kind[SHUFFLED][:3]] + [
        class_order[start : start + batch_size] for start in starts
    ]


def compare_orders(dependence: Dependence, changes: list[OrderChange]) -> Dependence:
    """Adds the results of a comparison of all orders."""
    return dataclasses.replace(
        dependence,
        examples=min(change.examples for change in changes),
        orders=sum(change.orders for change in changes),
        changed=max(change.predictions for change in changes),
        differs=any(c.nll > OTHER_PLACE * max(1.0, c.scale) for c in changes),
    )
