"""Measures every protocol of an audit, and keeps what became of every example."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable

import numpy as np

from pnoise_jax import data, evaluation
from pnoise_jax.evaluation import Hits, Predictions
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.subjects import AuditedNoise, Subject


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One protocol with noise, for all seeds.

    Attributes:
      noise: what acts.
      order: "shuffled", "class_sorted", or "partly_sorted" for the purity sweep.
      batch_size: of the protocol.
      mixed_share: of a batch, that stands out of place; for the purity sweep only.
      predictions: by seed.
      votes: (seeds, n) int32, the class with the largest mean clean logit of each example's group.
      batches: (n,) int32, the batch that each example fell into, the same for all seeds.
      purity: the mean share of an example's mates, those it is mixed with, that have its label.
      label_bits: what the labels of those mixed together tell about one another, bits.
    """

    noise: AuditedNoise
    order: str
    batch_size: int
    mixed_share: float | None
    predictions: tuple[Predictions, ...]
    votes: np.ndarray
    batches: np.ndarray
    purity: float | None
    label_bits: float

    @property
    def hits(self) -> Hits:
        """For statistics: examples that the noise mixed belong together."""
        correct = np.stack([p.rank < 1 for p in self.predictions])
        return Hits(correct, self.batches if self.noise.mixes_batch else None)

    @property
    def agreement(self) -> float:
        """Percent of predictions that equal the vote of their batch."""
        predicted = np.stack([p.predicted for p in self.predictions])
        return 100 * float((predicted == self.votes).mean())


@dataclasses.dataclass(frozen=True, eq=False)
class Measurements:
    """All that an audit measured.

    Attributes:
      labels: (n,).
      num_classes: of the logits.
      seeds: of the models.
      clean: predictions without noise, by seed.
      grid: noise x batch size x order.
      sweep: the purity sweep, at the first batch size.
      largest_change: of a clean logit with other batch mates, and how many examples were tried;
        None where no clean function was given.
      seconds: by part, over all seeds.
    """

    labels: np.ndarray
    num_classes: int
    seeds: tuple[int, ...]
    clean: tuple[Predictions, ...]
    grid: tuple[Cell, ...]
    sweep: tuple[Cell, ...]
    largest_change: tuple[float, int] | None
    seconds: dict[str, float]

    @property
    def clean_hits(self) -> Hits:
        """For statistics."""
        return Hits(np.stack([p.rank < 1 for p in self.clean]))

    def cell(self, noise: AuditedNoise, order: str, batch_size: int) -> Cell:
        """One cell of the grid."""
        wanted = (noise.name, order, batch_size)
        return next(c for c in self.grid if (c.noise.name, c.order, c.batch_size) == wanted)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """One protocol to run: a cell that is still empty."""

    noise: AuditedNoise
    order: str
    batch_size: int
    mixed_share: float | None = None

    def indices(self, labels: np.ndarray, seed: int) -> np.ndarray:
        """The order of the examples, (n,)."""
        if self.mixed_share is None:
            return data.evaluation_order(labels, self.order, seed=seed)
        return data.partly_sorted_order(
            labels, mixed_share=self.mixed_share, batch_size=self.batch_size, seed=seed
        )


def measure(
    subjects: Iterable[Subject],
    labels: np.ndarray,
    noises: tuple[AuditedNoise, ...],
    settings: AuditSettings,
    report: Callable[[str], None],
) -> Measurements:
    """Runs all protocols on all subjects, one subject at a time.

    Args:
      subjects: made lazily, so that one subject's representations are in memory at a time.
      labels: (n,) of the test set.
      noises: what to audit, by different names.
      settings: with batch sizes.
      report: takes a line when a subject is done.

    Raises:
      ValueError: the clean model's logits depend on the batch, so that it is no reference.
    """
    grid, sweep = plan(noises, settings)
    orders = {p: p.indices(labels, settings.seed) for p in (*grid, *sweep)}
    found: dict[_Plan, list] = {p: [] for p in orders}
    clean, seeds, changes = [], [], []
    classes = 0
    timer = _Timer()
    for subject in subjects:
        timer.lap("restoring")
        logits, predictions = subject.clean()
        clean.append(predictions)
        timer.lap("clean pass")
        changes.append(subject.largest_change())
        _require_reference(subject.seed, logits, changes[-1])
        timer.lap("batch check")
        noise_seed = (settings.seed + subject.seed) % 2**32
        for plans, part in ((grid, "protocols"), (sweep, "purity sweep")):
            for p in plans:
                noisy = subject.predict(p.noise, orders[p], p.batch_size, noise_seed)
                groups = evaluation.in_batches(orders[p], p.noise.group_size or p.batch_size)
                found[p].append((noisy, vote(logits, groups)))
            timer.lap(part)
        seeds.append(subject.seed)
        classes = logits.shape[1]
        report(_progress(subject.seed, clean[-1], [found[p][-1][0] for p in grid[:2]]))
        del subject, logits  # before the next one's representations are made
    return Measurements(
        labels=labels,
        num_classes=classes,
        seeds=tuple(seeds),
        clean=tuple(clean),
        grid=tuple(_cell(p, orders[p], found[p], labels) for p in grid),
        sweep=tuple(_cell(p, orders[p], found[p], labels) for p in sweep),
        largest_change=None if None in changes else max(changes),
        seconds=timer.seconds,
    )


class _Timer:
    """Seconds by part, from lap to lap."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """What passed since the last lap was this part."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now


def plan(
    noises: tuple[AuditedNoise, ...], settings: AuditSettings
) -> tuple[list[_Plan], list[_Plan]]:
    """The grid, and the purity sweep of the noises that mix a batch."""
    grid = [
        _Plan(noise, order, size)
        for noise, size, order in itertools.product(noises, settings.batch_sizes, evaluation.ORDERS)
    ]
    sweep = [
        _Plan(noise, "partly_sorted", settings.batch_sizes[0], float(share))
        for noise in noises
        if noise.mixes_batch
        for share in np.linspace(0, 1, settings.purity_steps)
    ]
    return grid, sweep


def vote(logits: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """The class with the largest mean logit of each example's batch, (n,) int32.

    Args:
      logits: (n, classes).
      batches: (n,), the number of each example's batch, from 0.
    """
    order = np.argsort(batches, kind="stable")
    starts = np.flatnonzero(np.diff(batches[order], prepend=-1))
    sums = np.add.reduceat(logits[order], starts, axis=0, dtype=np.float64)
    return sums.argmax(axis=1).astype(np.int32)[batches]


def _cell(p: _Plan, order: np.ndarray, found: list, labels: np.ndarray) -> Cell:
    predictions, votes = zip(*found, strict=True)
    groups = evaluation.in_batches(order, p.noise.group_size or p.batch_size)
    return Cell(
        noise=p.noise,
        order=p.order,
        batch_size=p.batch_size,
        mixed_share=p.mixed_share,
        predictions=predictions,
        votes=np.stack(votes),
        batches=evaluation.in_batches(order, p.batch_size),
        purity=evaluation.purity(labels, groups),
        label_bits=evaluation.label_bits_per_batch(labels, groups),
    )


def _require_reference(seed: int, logits: np.ndarray, change: tuple[float, int] | None) -> None:
    if change is None:
        return
    size, count = change
    allowed = 1e-3 * float(np.abs(logits[:count]).max()) + 1e-5
    if size > allowed:
        raise ValueError(
            f"the clean model of seed {seed} is no reference: a logit changes by "
            f"{size:.3g} (allowed: {allowed:.2g}) when its example stands beside others; give "
            "the model without noise, with its batch statistics frozen"
        )


def _progress(seed: int, clean: Predictions, noisy: list[Predictions]) -> str:
    tops = [100 * float(np.mean(p.rank < 1)) for p in (clean, *noisy)]
    return (
        f"seed {seed}: top-1 clean {tops[0]:.1f} %, noisy shuffled {tops[1]:.1f} %, noisy "
        f"class-sorted {tops[2]:.1f} %"
    )
