"""The interface of an audited subject: a trained model of this project, or any function."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise


class Audited(Protocol):
    """One model, trained with one seed, and the examples that it is audited on.

    Attributes:
      seed: the seed of its training.
    """

    seed: int

    @property
    def blank(self) -> int | None:
        """n, the index of a blank example, which belongs to no class; None if there is none."""
        ...

    def clean(self) -> tuple[np.ndarray, evaluation.Predictions]:
        """Returns logits (n, classes) float32 and predictions without noise, in test set order."""
        ...

    def clean_change(self) -> tuple[float, int] | None:
        """Returns the largest change of a clean logit with other batch mates.

        The second number is how many examples were tried. None if there is no clean function.
        """
        ...

    def predict(
        self, audited: AuditedNoise, order: np.ndarray, batch_size: int, seed: int
    ) -> evaluation.Predictions:
        """Predicts with noise, in batches of consecutive examples of ``order``, (n,) indices."""
        ...

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """Returns the examples (b, ...) with the indices (b,), which may include `blank`."""
        ...

    def batch_function(
        self, audited: AuditedNoise, seed: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Returns the function with noise: a batch of examples (b, ...) to logits (b, classes)."""
        ...

    def drift(self) -> float:
        """Returns how much a logit of the first batch of the audit changes if it is called again.

        It is the largest change, with noise where the first batch had noise; 0 if the subject keeps
        nothing from call to call.
        """
        ...

    def logits_of_batches(
        self, audited: AuditedNoise, batches: np.ndarray, seed: int
    ) -> np.ndarray:
        """Returns logits (m, b, classes) with noise, for the indices (m, b) of m batches."""
        ...

    def require_resumable(self, audited: AuditedNoise, batch_size: int) -> None:
        """Raises ValueError if `predict` would compute something other than the model itself."""
