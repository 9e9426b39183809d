"""The orders in which an audit scores a test set, by what they keep and what they permute."""

import dataclasses

import numpy as np

from pnoise_jax import data
from pnoise_jax.studies.leak.settings import AuditSettings

SHUFFLED = "shuffled"
CLASS_SORTED = "class_sorted"
CLASS_PERMUTED = "class_sorted, files permuted"
OWN_PREDICTIONS = "sorted by own clean predictions"
AS_GIVEN = "as given"

KINDS = {
    SHUFFLED: "random orders",
    CLASS_SORTED: "class by class, in the data set's order within each class",
    CLASS_PERMUTED: "class by class, in a random order within each class",
    OWN_PREDICTIONS: "by the class that the clean model predicts, in a random order within each; "
    "no label is used",
    AS_GIVEN: "the data set's own order",
}


@dataclasses.dataclass(frozen=True)
class Orders:
    """The orders that do not depend on a model.

    Attributes:
      by_kind: lists of (n,) indices, by their kind.
    """

    by_kind: dict[str, list[np.ndarray]]

    @classmethod
    def of(cls, labels: np.ndarray, settings: AuditSettings) -> "Orders":
        """Returns the orders of a test set; its own is left out if that is class order.

        Args:
          labels: (n,).
          settings: number of orders, and their seed.
        """
        class_sorted = data.evaluation_order(labels, "class_sorted", seed=settings.seed)
        first = data.evaluation_order(labels, "shuffled", seed=settings.seed)
        generator = np.random.default_rng([settings.seed, 1])
        others = [generator.permutation(len(labels)) for _ in range(settings.orders - 1)]
        by_kind = {
            SHUFFLED: [first, *others],
            CLASS_SORTED: [class_sorted],
            CLASS_PERMUTED: grouped(labels, settings.orders // 2, generator),
        }
        if np.any(np.diff(labels) < 0):
            by_kind[AS_GIVEN] = [np.arange(len(labels))]
        return cls(by_kind)

    def with_predictions(self, predicted: np.ndarray, settings: AuditSettings) -> dict:
        """Returns all orders by kind, for a model with clean predictions ``predicted``, (n,)."""
        generator = np.random.default_rng([settings.seed, 2])
        by_prediction = grouped(predicted, settings.orders // 4, generator)
        return self.by_kind | {OWN_PREDICTIONS: by_prediction}


def grouped(classes: np.ndarray, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Returns ``count`` orders (n,) with ascending classes, in random order within each class."""
    return [np.lexsort((generator.random(len(classes)), classes)) for _ in range(count)]
