"""What an audit looks at: one trained model, ours or anybody's function of a batch."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise


class Audited(Protocol):
    """One model, trained with one seed, and the examples it is audited on.

    Attributes:
      seed: of its training.
    """

    seed: int

    @property
    def blank(self) -> int | None:
        """The index of an example that shows nothing of any class, n; None if there is none."""
        ...

    def clean(self) -> tuple[np.ndarray, evaluation.Predictions]:
        """Without noise: logits (n, classes) float32 and predictions, in the test set's order."""
        ...

    def clean_change(self) -> tuple[float, int] | None:
        """How much clean logits change with the examples beside them, and of how many tried.

        None if there is no clean function.
        """
        ...

    def predict(
        self, audited: AuditedNoise, order: np.ndarray, batch_size: int, seed: int
    ) -> evaluation.Predictions:
        """With noise, in batches of consecutive examples of ``order``, (n,) indices."""
        ...

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """The examples (b, ...) of indices (b,), `blank` among them."""
        ...

    def batch_function(
        self, audited: AuditedNoise, seed: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        """With noise: one batch of examples (b, ...) to logits (b, classes)."""
        ...

    def logits_of_batches(
        self, audited: AuditedNoise, batches: np.ndarray, seed: int
    ) -> np.ndarray:
        """With noise: indices (m, b) of m batches to logits (m, b, classes)."""
        ...

    def require_resumable(self, audited: AuditedNoise, batch_size: int) -> None:
        """Raises ValueError where what `predict` computes differs from the model itself."""
