"""What an audit looks at: one trained model, ours or anybody's function of a batch."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from pnoise_jax import data, evaluation, noise
from pnoise_jax.studies.leak.independence import largest_change

CHECKED = 8  # examples on which a clean model is tried beside others, in 7 batches


@dataclasses.dataclass(frozen=True)
class AuditedNoise:
    """A noise under audit.

    Attributes:
      name: tells it from the others of the audit.
      words: the same in a sentence.
      quality: its quality matrix, or the noise's own name; None where it is not known.
      strength: its strength; None where it is not known.
      where: in words, where it enters.
      mixes_batch: whether it makes examples of a batch depend on one another.
      group_size: how many consecutive examples it mixes; None is the protocol's batch.
      injection: of our own models.
    """

    name: str
    words: str
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
        if getattr(kind, "axis", None) == "views":
            raise ValueError(
                "noise.axis='views': an audit shows one view of each image, so there are no views "
                "to mix; launch.evaluate with evaluation.views compares them"
            )
        matrix = getattr(kind, "quality", kind)
        quality, words = _NAMES.get(type(matrix), (type(matrix).__name__,) * 2)
        settings = _unusual_settings(kind) | _unusual_settings(matrix)
        others = "".join(f", {field} {value}" for field, value in settings.items())
        where = _place(injection, num_layers)
        return cls(
            name=f"{quality} {kind.strength:g}{others} at {where}",
            words=f"{words} (strength {kind.strength:g}{others})",
            quality=quality,
            strength=float(kind.strength),
            where=where,
            mixes_batch=kind.mixes_batch,
            group_size=getattr(kind, "group_size", None) if kind.mixes_batch else None,
            injection=injection,
        )


_NAMES = {
    noise.CyclicShift: ("cyclic_shift", "the cyclic shift"),
    noise.Optimal: ("optimal", "the optimal quality matrix"),
    noise.Dense: ("dense", "the given quality matrix"),
    noise.Gaussian: ("gaussian", "Gaussian noise"),
    noise.SaltAndPepper: ("salt_and_pepper", "salt-and-pepper noise"),
    noise.Erase: ("erase", "erasing the representation"),
}
_NO_SETTINGS = ("strength", "probability", "quality", "values", "implementation", "axis_name")


def _unusual_settings(kind: Any) -> dict[str, Any]:
    """The fields of a noise or a quality matrix that are not at their defaults."""
    if not dataclasses.is_dataclass(kind):
        return {}
    return {
        field.name: getattr(kind, field.name)
        for field in dataclasses.fields(kind)
        if field.name not in _NO_SETTINGS and getattr(kind, field.name) != field.default
    }


def _place(injection: noise.Injection, num_layers: int) -> str:
    layers = injection.layers(num_layers)
    listed = f"layer {', '.join(map(str, layers))}"
    if injection.layer == "random":
        listed = f"one of layers 1 to {num_layers} at random"
    at = "image" if injection.point == "image" else f"{injection.point}, {listed}"
    return f"{at}, {injection.tokens} tokens"


class Subject(Protocol):
    """One model, trained with one seed."""

    seed: int

    def clean(self) -> tuple[np.ndarray, evaluation.Predictions]:
        """Without noise: logits (n, classes) float32 and predictions, in the test set's order."""

    def largest_change(self) -> tuple[float, int] | None:
        """How much clean logits change with the examples beside them, and of how many tried.

        None where there is no clean function to ask.
        """

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
        report: Callable[[str], None] | None = None,
    ):
        """Takes what `evaluation.predict` takes; ``noises`` are those that will be asked for."""
        self.seed = seed
        self._model, self._variables, self._dataset = model, variables, dataset
        self._options = {"mesh": mesh, "mean": tuple(mean), "std": tuple(std), "report": report}
        firsts = {evaluation.first_noisy_layer(n.injection, model.num_layers) for n in noises}
        self._layers = tuple(sorted(firsts - {0}))
        self._scratch = scratch

    @functools.cached_property
    def _clean(self) -> evaluation.CleanPass:
        return evaluation.clean_pass(
            self._model,
            self._variables,
            self._dataset,
            layers=self._layers,
            scratch=self._scratch,
            **self._options,
        )

    def clean(self) -> tuple[np.ndarray, evaluation.Predictions]:
        return self._clean.logits, self._clean.predictions

    def largest_change(self) -> tuple[float, int]:
        count = min(len(self._dataset), CHECKED)
        images = np.stack([self._dataset[i]["image"] for i in range(count)])
        plain = self._model.clone(injection=None)
        mean, std = self._options["mean"], self._options["std"]
        apply = functools.partial(_clean_logits, plain, mean, std, self._variables)
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


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _clean_logits(model, mean, std, variables, images) -> jax.Array:
    return model.apply(variables, evaluation.normalise(images, mean, std), train=False)


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
        self._apply, self._clean_apply = apply, clean
        self._images, self._labels = images, labels
        self._batch_size = batch_size
        self._classes: int | None = None

    def clean(self) -> tuple[np.ndarray, evaluation.Predictions]:
        order = np.arange(len(self._labels))
        apply, batch_size = self._clean_apply, self._batch_size
        if apply is None:
            apply, batch_size = self._apply, 1
        logits = self._logits(apply, order, batch_size)
        return logits, evaluation.Predictions.of(logits, self._labels)

    def largest_change(self) -> tuple[float, int] | None:
        if self._clean_apply is None:
            return None
        count = min(len(self._labels), CHECKED)
        return largest_change(self._clean_apply, self._images[:count]).size, count

    def predict(
        self, audited: AuditedNoise, order: np.ndarray, batch_size: int, seed: int
    ) -> evaluation.Predictions:
        del audited, seed
        logits = self._logits(self._apply, order, batch_size)
        return evaluation.Predictions.of(logits, self._labels)

    def _logits(self, apply: Callable, order: np.ndarray, batch_size: int) -> np.ndarray:
        """(n, classes), in the order of the images, of batches that follow ``order``."""
        parts = []
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            found = np.asarray(apply(self._images[rows]), np.float32)
            self._check(found, rows)
            parts.append(found)
        logits = np.empty((len(order), self._classes), np.float32)
        logits[order] = np.concatenate(parts)
        return logits

    def _check(self, found: np.ndarray, rows: np.ndarray) -> None:
        classes = self._classes or "classes"
        if (
            found.ndim != 2
            or len(found) != len(rows)
            or found.shape[1] != (self._classes or found.shape[1])
        ):
            raise ValueError(
                f"apply gave an array of shape {found.shape} for a batch of {len(rows)}; expected "
                f"logits ({len(rows)}, {classes})"
            )
        self._classes = found.shape[1]
        if self._labels.max() >= self._classes:
            raise ValueError(f"label {self._labels.max()}: apply gives {self._classes} logits")
        if not np.isfinite(found).all():
            culprit = rows[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])]
            raise ValueError(f"apply gave logits that are not finite for example {culprit}")
