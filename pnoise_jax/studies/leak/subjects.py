"""What an audit looks at: one trained model, ours or anybody's function of a batch."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from pnoise_jax import data, evaluation, noise
from pnoise_jax.studies.leak.independence import largest_change


@dataclasses.dataclass(frozen=True)
class AuditedNoise:
    """A noise under audit.

    Attributes:
      name: tells it from the others of the audit.
      quality: its quality matrix, or the noise's own name; None where it is not known.
      strength: its strength; None where it is not known.
      where: in words, where it enters.
      mixes_batch: whether it makes examples of a batch depend on one another.
      group_size: how many consecutive examples it mixes; None is the protocol's batch.
      injection: of our own models.
    """

    name: str
    quality: str | None = None
    strength: float | None = None
    where: str | None = None
    mixes_batch: bool = True
    group_size: int | None = None
    injection: noise.Injection | None = None

    @classmethod
    def of(cls, injection: noise.Injection, num_layers: int) -> "AuditedNoise":
        """Of an injection into a model of so many layers."""
        kind = injection.noise
        named = getattr(kind, "quality", kind)
        quality = _QUALITY_NAMES.get(type(named), type(named).__name__)
        axis = getattr(kind, "axis", "batch")
        if axis == "views":
            raise ValueError(
                "noise.axis='views': an audit shows one view of each image, so there are no views "
                "to mix; launch.evaluate with evaluation.views compares them"
            )
        layers = ", ".join(map(str, injection.layers(num_layers)))
        at = "image" if injection.point == "image" else f"{injection.point}, layer {layers}"
        where = f"{at}, {injection.tokens} tokens" + (", mixing tokens" if axis == "tokens" else "")
        return cls(
            name=f"{quality} {kind.strength:g} at {where}",
            quality=quality,
            strength=float(kind.strength),
            where=where,
            mixes_batch=kind.mixes_batch,
            group_size=getattr(kind, "group_size", None),
            injection=injection,
        )


_QUALITY_NAMES = {
    noise.CyclicShift: "cyclic_shift",
    noise.Optimal: "optimal",
    noise.Dense: "dense",
    noise.Gaussian: "gaussian",
    noise.SaltAndPepper: "salt_and_pepper",
}


class Subject(Protocol):
    """One model, trained with one seed."""

    seed: int

    def clean_logits(self) -> np.ndarray:
        """(n, classes) float32 without noise, in the test set's order."""

    def largest_change(self) -> tuple[float, int]:
        """How much clean logits change with the examples beside them, and of how many tried."""

    def predict(
        self, audited: AuditedNoise, order: np.ndarray, batch_size: int, seed: int
    ) -> evaluation.Predictions:
        """With noise, in batches of consecutive examples of ``order``, (n,) indices."""


class ModelSubject:
    """One of our models with its variables; the layers before the noise run once per image."""

    def __init__(
        self,
        model: nn.Module,
        variables: Any,
        dataset: data.Dataset,
        *,
        noises: tuple[AuditedNoise, ...],
        seed: int,
        mesh: Mesh,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        scratch: Path | None = None,
    ):
        """Takes what `evaluation.predict` takes; ``noises`` are those that will be asked for."""
        self.seed = seed
        self._model, self._variables, self._dataset = model, variables, dataset
        self._options = {"mesh": mesh, "mean": mean, "std": std}
        firsts = {evaluation.first_noisy_layer(n.injection, model.num_layers) for n in noises}
        self._clean = evaluation.clean_pass(
            model,
            variables,
            dataset,
            layers=tuple(sorted(firsts - {0})),
            scratch=scratch,
            **self._options,
        )

    def clean_logits(self) -> np.ndarray:
        return self._clean.logits

    def largest_change(self) -> tuple[float, int]:
        count = min(len(self._dataset), 16)
        images = np.stack([self._dataset[i]["image"] for i in range(count)])
        plain = self._model.clone(injection=None)
        mean, std = self._options["mean"], self._options["std"]

        @jax.jit
        def apply(images):
            images = evaluation.normalise(images, mean, std)
            return plain.apply(self._variables, images, train=False)

        return largest_change(apply, images).size, count

    def predict(
        self, audited: AuditedNoise, order: np.ndarray, batch_size: int, seed: int
    ) -> evaluation.Predictions:
        layer = evaluation.first_noisy_layer(audited.injection, self._model.num_layers)
        return evaluation.predict(
            self._model.clone(injection=audited.injection),
            self._variables,
            self._dataset,
            evaluation.Protocol(noise=True, order="class_sorted", batch_size=batch_size),
            order=order,
            seed=seed,
            representations=self._clean.representations.get(layer),
            **self._options,
        )


class FunctionSubject:
    """Anybody's function of a batch: images (b, ...) to logits (b, classes)."""

    def __init__(
        self,
        apply: Callable[[np.ndarray], np.ndarray],
        clean: Callable[[np.ndarray], np.ndarray] | None,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        seed: int,
        batch_size: int,
    ):
        """``clean`` is the same without noise; None shows ``apply`` one image at a time."""
        self.seed = seed
        self._apply, self._images, self._labels = apply, images, labels
        self._clean_apply = clean or (lambda batch: _one_by_one(apply, batch))
        self._batch_size = batch_size

    def clean_logits(self) -> np.ndarray:
        order = np.arange(len(self._labels))
        logits = _in_batches(self._clean_apply, self._images, order, self._batch_size)
        if self._labels.max() >= logits.shape[1]:
            raise ValueError(f"label {self._labels.max()}: apply gives {logits.shape[1]} logits")
        return logits

    def largest_change(self) -> tuple[float, int]:
        count = min(len(self._labels), 16)
        return largest_change(self._clean_apply, self._images[:count]).size, count

    def predict(
        self, audited: AuditedNoise, order: np.ndarray, batch_size: int, seed: int
    ) -> evaluation.Predictions:
        del audited, seed
        logits = _in_batches(self._apply, self._images, order, batch_size)
        return evaluation.Predictions.of(logits, self._labels)


def _in_batches(apply, images: np.ndarray, order: np.ndarray, batch_size: int) -> np.ndarray:
    """The logits (n, classes), in the order of the images, of batches that follow ``order``."""
    logits = None
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        found = np.asarray(apply(images[rows]), np.float32)
        if found.ndim != 2 or len(found) != len(rows):
            raise ValueError(
                f"apply gave an array of shape {found.shape} for a batch of {len(rows)}; expected "
                f"logits ({len(rows)}, classes)"
            )
        if logits is None:
            logits = np.empty((len(order), found.shape[1]), np.float32)
        logits[rows] = found
    return logits


def _one_by_one(apply, batch: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(apply(batch[i : i + 1])) for i in range(len(batch))])
