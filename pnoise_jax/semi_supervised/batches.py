"""Batches with equally many labelled and unlabelled images."""

from pnoise_jax import data
from pnoise_jax.adaptation import PairedBatches


class LabelledAndUnlabelled(PairedBatches):
    """{"image", "label", "unlabelled_image"} for each step; close it, or use `with`.

    The labels of the second stream are dropped here: no step sees them.
    """

    def __next__(self) -> data.Batch:
        labelled = next(self._source)
        return {**labelled, "unlabelled_image": next(self._target)["image"]}
