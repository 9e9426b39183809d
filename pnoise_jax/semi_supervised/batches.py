"""Batches with equal numbers of labelled and unlabelled images."""

from pnoise_jax import data
from pnoise_jax.adaptation import PairedBatches


class LabelledAndUnlabelled(PairedBatches):
    """Iterates over {"image", "label", "unlabelled_image"}, one batch per step.

    The labels of the second stream are dropped here, so no step sees them. Close it, or use `with`.
    """

    def __next__(self) -> data.Batch:
        labelled = next(self._source)
        return {**labelled, "unlabelled_image": next(self._target)["image"]}
