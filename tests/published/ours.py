"""This project's side of the comparison: a run, its test set, and its predictions."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax import data, evaluation, parallel, training, weights
from pnoise_jax.training import Experiment

BATCH_SIZE = 10  # of the published evaluation


@dataclasses.dataclass(frozen=True, eq=False)
class Ours:
    """A run with the published site's noise, and what it predicts.

    Attributes:
      workdir: the run's.
      experiment: built from its config, with the noise `optimal_published`.
      variables: the model's.
    """

    workdir: Path
    experiment: Experiment
    variables: dict[str, Any]

    @property
    def labels(self) -> np.ndarray:
        """Those of the test images, (n,)."""
        return self.experiment.test_data.labels

    def order(self, name: str, *, seed: int = 0) -> np.ndarray:
        """(n,) indices: "stored", the data set's own order, or one of `data.EVALUATION_ORDERS`."""
        if name == "stored":
            return np.arange(len(self.labels))
        return data.evaluation_order(self.labels, name, seed=seed)

    def predict(self, order: np.ndarray, *, noisy: bool) -> evaluation.Predictions:
        """For all test images, in the data set's order; batches are cut from ``order``."""
        return evaluation.predict(
            self.experiment.model,
            self.variables,
            self.experiment.test_data,
            evaluation.Protocol(noise=noisy, order="shuffled", batch_size=BATCH_SIZE),
            mesh=parallel.data_mesh(),
            mean=self.experiment.mean,
            std=self.experiment.std,
            order=order,
        )


def load_run(workdir: Path) -> Ours:
    """A finished run of configs/digits_vit.py, with any seed.

    Raises:
      ValueError, OSError: there is no such run.
    """
    config = training.read_config(workdir)
    if (config.data.name, config.model.name) != ("digits", "vit_ti_16"):
        raise ValueError(
            f"--workdir={str(workdir)!r} trained {config.model.name!r} on {config.data.name!r}: "
            "give a run of configs/digits_vit.py"
        )
    config.noise.preset = "optimal_published"
    experiment = training.build(config)
    variables = weights.load(workdir, experiment.model, report=lambda _: None)
    return Ours(workdir, experiment, variables)
