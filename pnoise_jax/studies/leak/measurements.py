"""The measurements of an audit, by noise and batch size."""

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
      votes: (seeds, n) int32, the class with the largest mean clean logit in each example's group.
      batches: (n,) int32, the number of each example's batch, the same for all seeds.
      purity: the mean share of an example's mates, which it is mixed with, that have its label;
        None if no example has mates.
      label_bits: how many bits the labels in a group reveal about one another, mean over groups.
      mixed_share: the share of each batch that is shuffled; None outside the purity sweep.
    """

    predictions: tuple[Predictions, ...]
    votes: np.ndarray
    batches: np.ndarray
    purity: float | None
    label_bits: float
    mixed_share: float | None = None

    @property
    def hits(self) -> Hits:
        """For statistics: the examples of a batch form one unit."""
        return Hits(np.stack([p.rank < 1 for p in self.predictions]), self.batches)


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One noise at one batch size, for all seeds.

    Attributes:
      noise: the noise.
      batch_size: batch size of the protocols.
      orders: scores by kind of order, over all seeds.
      shuffled: the first random order.
      class_sorted: class order, with the data set's order within each class.
      sweep: the purity sweep, from sorted to mixed batches.
      dependence: whether predictions depend on the batch, checked exactly.
      interventions: None if they could not be made.
      no_interventions: the reason, in words.
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
    """All measurements of an audit.

    Attributes:
      labels: (n,).
      label_sets: (n, k), all correct labels of each image; None if each has one label. With sets,
        `labels` are the original labels.
      num_classes: number of logits.
      seeds: seeds of the models.
      clean: predictions without noise, by seed.
      cells: one for each noise and batch size.
      clean_change: the largest change of a clean logit with other batch mates, and the number of
        examples tried; None if there is no clean function.
      seconds: by part of the audit, over all seeds.
      metric: the metric that was scored in addition to accuracy, if any.
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
        """The clean hits, for statistics."""
        return Hits(np.stack([p.rank < 1 for p in self.clean]))

    def cell(self, noise_id: str, batch_size: int) -> Cell:
        """Returns the cell of a noise and a batch size."""
        wanted = (noise_id, batch_size)
        return next(c for c in self.cells if (c.noise.name, c.batch_size) == wanted)
