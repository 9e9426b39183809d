"""Accuracy on perturbed test images: Gaussian noise, salt-and-pepper, FGSM and PGD.

The model is in evaluation mode: batch norms use their running statistics, and dropout, stochastic
depth and all injected noise are off. The attacker knows the weights, the gradients and the true
labels. It attacks each example once with each of `LOSSES`, and the worst result counts: an example
is right only if it is right after all of these attacks.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pnoise_jax import data, evaluation, noise, parallel, stopping
from pnoise_jax.robustness import losses as attack_losses
from pnoise_jax.robustness.attacks import Attack
from pnoise_jax.robustness.losses import BLIND, LOSSES
from pnoise_jax.training import RandomStreams

Kind = Literal["gaussian", "salt_and_pepper", "fgsm", "pgd"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PGD_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """A perturbation of test images, whose strength is set per evaluation.

    Attributes:
      kind: one of `KINDS`, each with its own strength: "gaussian", the standard deviation;
        "salt_and_pepper", the probability that a value is replaced by the smallest or largest of
        its image; "fgsm" and "pgd", the largest change of a pixel. Pixels range from 0 to 1, and
        the result is clipped to that range.
      steps: number of PGD steps, of size 2.5 strength / steps, or of the strength itself if there
        is only one; None is 20. Must be None for other kinds.
      random_start: whether PGD starts at a random point within the strength instead of at the
        image; None is True. Must be None for other kinds.
    """

    kind: Kind
    steps: int | None = None
    random_start: bool | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.kind != "pgd" and self.steps is not None:
            raise ValueError(f"steps={self.steps!r}: only pgd has steps; leave it out")
        if self.kind != "pgd" and self.random_start is not None:
            raise ValueError(f"random_start={self.random_start!r}: only pgd has one; leave it out")
        if self.kind == "pgd":
            object.__setattr__(self, "random_start", self.random_start is not False)
            steps = PGD_STEPS if self.steps is None else self.steps
            object.__setattr__(self, "steps", Attack(1.0, steps).steps)  # checks them

    @property
    def is_attack(self) -> bool:
        """Whether the perturbation depends on the model."""
        return self.kind in ("fgsm", "pgd")

    def require_strengths(self, strengths: Sequence[float], *, field: str) -> tuple[float, ...]:
        """Returns the strengths as floats.

        Args:
          strengths: in ascending order; 0 leaves the images unchanged.
          field: name of the field with the strengths, for errors.

        Raises:
          ValueError: there are none, or they are out of range, repeated or not in ascending order.
        """
        if isinstance(strengths, str) or not isinstance(strengths, Sequence):
            raise ValueError(f"{field}={strengths!r}: give a tuple of numbers, such as (0.1, 0.2)")
        listed = f"{field}=({', '.join(map(str, strengths))})"
        if not strengths:
            raise ValueError(f"{listed}: give at least one strength, such as 0.1")
        limit = math.inf if self.kind == "gaussian" else 1.0
        for value in strengths:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or not 0 <= value <= limit:
                raise ValueError(f"{listed}: {value!r} is not a {self._range()}")
        for before, after in itertools.pairwise(strengths):
            if before == after:
                raise ValueError(f"{listed}: {after!r} appears twice; give each strength once")
            if before > after:
                raise ValueError(f"{listed}: give them in ascending order")
        return tuple(map(float, strengths))

    def _range(self) -> str:
        if self.kind == "gaussian":
            return "standard deviation: give finite numbers of at least 0"
        if self.kind == "salt_and_pepper":
            return "probability: give numbers from 0 to 1"
        return (
            "change of pixels, which range from 0 to 1: give numbers from 0 to 1, such as 8 / 255"
        )

    def __call__(
        self,
        key: jax.Array,
        loss: Callable[[jax.Array], jax.Array],
        pixels: jax.Array,
        *,
        strength: jax.Array | float,
        index: jax.Array,
    ) -> jax.Array:
        """Returns the perturbed pixels, in [0, 1].

        Args:
          key: the same key for all batches.
          loss: a scalar function of pixels, which attacks increase.
          pixels: (batch, height, width, channels), float, in [0, 1].
          strength: see `kind`; may be traced.
          index: (batch,) int32, which seeds each example's random numbers.
        """
        if self.is_attack:
            attack = Attack(1.0, self.steps or 1, random_start=bool(self.random_start))
            return attack(key, loss, pixels, strength=strength, index=index)
        applied = noise.Gaussian() if self.kind == "gaussian" else noise.SaltAndPepper(1.0)
        return jnp.clip(applied(key, pixels, strength=strength, index=index), 0, 1)


def predict_perturbed(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    perturbation: Perturbation,
    strength: float,
    *,
    mesh: Mesh,
    mean: data.PixelMean,
    std: tuple[float, ...],
    seed: int = 0,
    losses: tuple[str, ...] = LOSSES,
    report: Callable[[str], None] | None = None,
) -> evaluation.Predictions:
    """Evaluates ``model`` on perturbed images of all of ``dataset``; each example counts once.

    An example's random numbers depend only on the seed and its index, not on the devices, and are
    the same at every strength. All strengths share one compiled program. An attack runs once for
    each loss. The result for each example is the wrong prediction, if any; if both or neither are
    wrong, it is the one with the larger nll.

    Args:
      model: as for `evaluation.predict`; its injections are turned off.
      variables: the model's variables.
      dataset: the test set.
      perturbation: how to perturb its images.
      strength: see `Perturbation`.
      mesh: the devices.
      mean, std: as for `evaluation.predict`.
      seed: seed of the random numbers.
      losses: the losses that attacks increase, one or more of `LOSSES`; or "blind", which moves
        each pixel in a random direction, as a baseline for attacks. Noise ignores them.
      report: called with a sentence about the progress.

    Raises:
      ValueError: the strength or a loss is invalid, examples have no labels or, for attacks,
        several labels, or logits are not finite.
      StoppedError: as `evaluation.predict`.
    """
    perturbation.require_strengths((strength,), field="strength")
    attack_losses.require(losses)
    if perturbation.is_attack:
        require_single_labels(dataset)
    program = _program(model, dataset, mean, std)
    arguments = variables, np.uint32(seed), np.float32(strength)
    replicated = parallel.replicated(mesh)

    def attacked(loss: str) -> evaluation.Predictions:
        score = functools.partial(_score, program, perturbation, loss, replicated, *arguments)
        by = f" by {loss.replace('_', '-')}" if perturbation.is_attack else ""
        what = f"{perturbation.kind}{by} of strength {strength:g}"
        return evaluation.collect(_over(dataset, score, mesh), dataset, what, report)

    run = losses if perturbation.is_attack else losses[:1]
    return functools.reduce(_worse, map(attacked, run))


def _worse(one: evaluation.Predictions, other: evaluation.Predictions) -> evaluation.Predictions:
    """Returns for each example the wrong prediction; if both or neither are, by larger nll."""
    wrong, other_wrong = one.rank > 0, other.rank > 0
    takes = (other_wrong & ~wrong) | ((other_wrong == wrong) & (other.nll > one.nll))
    return evaluation.Predictions(
        np.where(takes, other.rank, one.rank),
        np.where(takes, other.nll, one.nll),
        np.where(takes, other.predicted, one.predicted),
        np.where(takes, other.lead, one.lead),
    )


def find_zero_gradients(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    *,
    mesh: Mesh,
    mean: data.PixelMean,
    std: tuple[float, ...],
) -> np.ndarray:
    """Returns whether each example has a zero gradient for all of `LOSSES`: (n,) bool.

    A gradient attack cannot move these images from where it starts, which says nothing about
    robustness.

    Args:
      model, variables, dataset, mesh, mean, std: as for `predict_perturbed`.
    """
    require_single_labels(dataset)
    program = _program(model, dataset, mean, std)
    find = functools.partial(_find_zeros, program, parallel.replicated(mesh), variables)
    zeros = np.zeros(len(dataset), bool)
    for index, batch in _over(dataset, find, mesh):
        zeros[index[index >= 0]] = batch[index >= 0]
    return zeros


@dataclasses.dataclass(frozen=True)
class _Program:
    """The static parts of the compiled program; a static argument of jit."""

    model: Any  # without injections
    mean: data.PixelMean
    std: tuple[float, ...]
    classes: tuple[int, ...] | None = None

    def logits(self, variables: Mapping[str, Any], pixels: jax.Array) -> jax.Array:
        scale = noise.PixelScale(self.mean, self.std)
        logits = self.model.apply(variables, scale.normalise(pixels), train=False)
        return evaluation.of_classes(logits, self.classes)

    def loss(
        self, name: str, variables: Mapping[str, Any], labels: jax.Array, pixels: jax.Array
    ) -> jax.Array:
        """Returns the summed loss of the pixels; see `losses.total`."""
        return attack_losses.total(name, self.logits(variables, pixels), labels)


def _program(
    model: nn.Module, dataset: data.Dataset, mean: data.PixelMean, std: tuple[float, ...]
) -> _Program:
    mean = evaluation.static_mean(mean)
    return _Program(model.clone(injection=None), mean, tuple(std), dataset.outputs)


def require_single_labels(dataset: data.Dataset) -> None:
    """Raises ValueError if images have several labels, since an attack needs a single one."""
    if dataset.label_sets is not None:
        raise ValueError(
            f"{dataset.name}: an attack increases the loss of one label, and these images have "
            "several; attack the images of imagenet2012 instead"
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _score(program, perturbation, name, replicated, variables, seed, strength, batch):
    keys = RandomStreams(jax.random.key(seed))
    pixels = _as_pixels(batch["image"])
    loss = functools.partial(program.loss, name, variables, batch["label"])
    if name == BLIND:
        drawn = noise.draw_per_example(jax.random.uniform, keys[BLIND], pixels, batch["index"])
        loss = functools.partial(jnp.vdot, jnp.where(drawn < 0.5, -1.0, 1.0))
    pixels = perturbation(
        keys[perturbation.kind], loss, pixels, strength=strength, index=batch["index"]
    )
    scores = evaluation.score_logits(program.logits(variables, pixels), batch)
    return jax.lax.with_sharding_constraint(scores, replicated)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _find_zeros(program, replicated, variables, batch):
    pixels, zeros = _as_pixels(batch["image"]), []
    for name in LOSSES:
        loss = functools.partial(program.loss, name, variables, batch["label"])
        zeros.append((jax.grad(loss)(pixels) == 0).all(axis=(1, 2, 3)))
    return jax.lax.with_sharding_constraint(jnp.stack(zeros).all(axis=0), replicated)


def _as_pixels(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255


def _over(dataset: data.Dataset, function: Callable, mesh: Mesh) -> Iterator[tuple[Any, Any]]:
    """Iterates over the indices of each batch, -1 for padding, and the function's result."""
    if dataset.labels.min(initial=0) < 0:
        culprit = int(np.argmax(dataset.labels < 0))
        raise ValueError(
            f"example {culprit} of {dataset.name}'s split {dataset.split!r} has no label "
            f"({dataset.labels[culprit]}): accuracy and attacks need one for every example; choose "
            "a split with labels"
        )
    most = evaluation.EXAMPLES_PER_DEVICE * parallel.batch_parts(mesh)
    at_once = min(most, -(-len(dataset) // parallel.batch_parts(mesh)) * parallel.batch_parts(mesh))
    indices = np.full(-(-len(dataset) // at_once) * at_once, -1, np.int32)
    indices[: len(dataset)] = np.arange(len(dataset))

    def results() -> Iterator[tuple[np.ndarray, Any]]:
        with data.eval_batches(
            dataset,
            indices=indices,
            batch_size=at_once,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ) as batches:
            for index, batch in zip(indices.reshape(-1, at_once), batches, strict=True):
                stopping.check("while evaluating")
                yield index, function(parallel.to_devices(batch, parallel.split_batch(mesh)))

    return evaluation.fetch_behind(results())
