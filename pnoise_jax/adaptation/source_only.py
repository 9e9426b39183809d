"""The lower bound: a model that never trains on the target."""

import dataclasses
from typing import Any

import jax

from pnoise_jax import data
from pnoise_jax.adaptation.task import AdaptationTask
from pnoise_jax.training import Metrics, State, StepContext


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SourceOnly(AdaptationTask):
    """Learns the source's labels, and is evaluated on the target."""

    def open_batches(self, start: int = 0) -> data.BatchIterator:
        """Opens the batches {"image", "label"} of the source."""
        return self.open_source(start)

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """Returns the cross-entropy of the source, and its metrics."""
        logits, state = self.apply(params, state, self.normalise(batch["image"]), context)
        loss, metrics = self.source_loss(logits, batch["label"])
        return loss, (state, metrics)
