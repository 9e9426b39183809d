"""All that an audit measured, by noise and batch size."""

import dataclasses

import numpy as np

from pnoise_jax.evaluation import Hits, Metric, Predictions
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.checks.dependence import Dependence
from pnoise_jax.studies.leak.checks.interventions import Interventions
from pnoise_jax.studies.leak.checks.scores import OrderScores


@dataclasses.dataclass(frozen=True, eq=False)
class Composition:
    """One way to batch the examples with noise, for all seeds.

    Attributes:
      predictions: by seed.
      votes: (seeds, n) int32, the class with the largest mean clean logit of each example's group.
      batches: (n,) int32, the batch that each example fell into, the same for all seeds.
      purity: the mean share of an example's mates, those it is mixed with, that have its label.
      label_bits: what the labels of those mixed together tell about one another, bits.
      mixed_share: of a batch, that is out of place; None outside the purity sweep.
    """

    predictions: tuple[Predictions, ...]
    votes: np.ndarray
    batches: np.ndarray
    purity: float | None
    label_bits: float
    mixed_share: float | None = None

    @property
    def hits(self) -> Hits:
        """For statistics: examples predicted in one batch belong together."""
        return Hits(np.stack([p.rank < 1 for p in self.predictions]), self.batches)


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One noise at one batch size, for all seeds.

    Attributes:
      noise: what acts.
      batch_size: of the protocols.
      orders: scores by kind of order, over all seeds.
      shuffled, class_sorted: the first random order, and the classes in the data set's order.
      sweep: from sorted to mixed batches.
      dependence: whether predictions depend on the batch at all, exactly.
      interventions: None where they cannot be made.
      no_interventions: why, in words.
    """

    noise: AuditedNoise
    batch_size: int
    orders: dict[str, OrderScores]
    shuffled: Composition
    class_sorted: Composition
    sweep: tuple[Composition, ...]
    dependence: Dependence
    interventions: Interventions | None
    no_interventions: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Measurements:
    """All that an audit measured.

    Attributes:
      labels: (n,).
      label_sets: (n, k) of images with several labels, each of which is correct; None where each
        image has one. `labels` are then the original ones.
      num_classes: of the logits.
      seeds: of the models.
      clean: predictions without noise, by seed.
      cells: noise x batch size.
      clean_change: of a clean logit with other batch mates, and how many examples were tried; None
        where no clean function was given.
      seconds: by part, over all seeds.
      metric: what was scored beside accuracy, if anything.
    """

    labels: np.ndarray
    num_classes: int
    seeds: tuple[int, ...]
    clean: tuple[Predictions, ...]
    cells: tuple[Cell, ...]
    clean_change: tuple[float, int] | None
    seconds: dict[str, float]
    metric: Metric | None = None
    label_sets: np.ndarray | None = None

    @property
    def clean_hits(self) -> Hits:
        """For statistics."""
        return Hits(np.stack([p.rank < 1 for p in self.clean]))

    def cell(self, noise_id: str, batch_size: int) -> Cell:
        """One of the cells."""
        wanted = (noise_id, batch_size)
        return next(c for c in self.cells if (c.noise.name, c.batch_size) == wanted)
