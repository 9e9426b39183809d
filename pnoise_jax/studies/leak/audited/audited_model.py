"""A model of this project under audit; the layers before the noise run once per image."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from pnoise_jax import data, evaluation, noise, parallel
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.checks.independence import largest_change

AT_ONCE = 256  # examples on the devices at once, in the batches of interventions
CHECKED = 8  # examples for which the clean model is tried with other mates, in 6 batches


class AuditedModel:
    """A model with its variables, and a data set."""

    def __init__(
        self,
        model: nn.Module,
        variables: Any,
        dataset: data.Dataset,
        *,
        noises: tuple[AuditedNoise, ...],
        seed: int,
        mesh: Mesh,
        mean: data.PixelMean,
        std: tuple[float, ...],
        scratch: Path | None = None,
        report: Callable[[str], None] | None = None,
    ):
        """Takes the arguments of `evaluation.predict`, and all ``noises`` that will be audited."""
        self.seed = seed
        self.blank = len(dataset)
        self._model, self._variables, self._dataset = model, variables, dataset
        self._pixels = {"mean": evaluation.static_mean(mean), "std": tuple(std)}
        self._mesh = mesh
        self._options = {"mesh": mesh, "report": report, **self._pixels}
        firsts = {self._first_layer(audited) for audited in noises}
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

    def clean_change(self) -> tuple[float, int]:
        count = min(len(self._dataset), CHECKED)
        function = self._function(self._model.clone(injection=None), noise=False, seed=0)
        return largest_change(function, self.inputs(np.arange(count))).size, count

    def predict(
        self, audited: AuditedNoise, order: np.ndarray, batch_size: int, seed: int
    ) -> evaluation.Predictions:
        return evaluation.predict(
            self._model.clone(injection=audited.injection),
            self._variables,
            self._dataset,
            evaluation.Protocol(noise=True, order="class_sorted", batch_size=batch_size),
            order=order,
            seed=seed,
            representations=self._clean.representations.get(self._first_layer(audited)),
            **self._options,
        )

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        images = [self._dataset[i]["image"] for i in rows if i != self.blank]
        blank = np.zeros(self._dataset.require_image_shape(), np.uint8)
        rest = iter(images)
        return np.stack([blank if i == self.blank else next(rest) for i in rows])

    def batch_function(
        self, audited: AuditedNoise, seed: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        model = self._model.clone(injection=audited.injection)
        return self._function(model, noise=True, seed=seed)

    def drift(self) -> float:
        return 0.0

    def logits_of_batches(
        self, audited: AuditedNoise, batches: np.ndarray, seed: int
    ) -> np.ndarray:
        model = self._model.clone(injection=audited.injection)
        count, size = batches.shape
        at_once = max(1, AT_ONCE // size)
        filled = np.resize(batches, (-(-count // at_once) * at_once, size))  # one compiled shape
        layer = self._first_layer(audited)
        function = self._function(
            model, noise=True, seed=seed, batch_size=size, layer=layer or None
        )
        inputs = functools.partial(self._kept, layer) if layer else self.inputs
        logits = [
            function(inputs(part.ravel())) for part in np.split(filled, len(filled) // at_once)
        ]
        return np.concatenate(logits).reshape(len(filled), size, -1)[:count]

    def _kept(self, layer: int, rows: np.ndarray) -> np.ndarray:
        """Returns the inputs of a layer's block for the images of `inputs`, from the clean pass."""
        blank = rows == self.blank
        kept = self._clean.representations[layer].values[np.where(blank, 0, rows)]
        if blank.any():
            kept[blank] = self._kept_of_blank[layer]
        return kept

    @functools.cached_property
    def _kept_of_blank(self) -> dict[int, np.ndarray]:
        """The input of each kept layer's block for a blank image, (1, ...)."""
        model = self._model.clone(injection=None)
        image = jax.device_put(self.inputs(np.array([self.blank])), parallel.replicated(self._mesh))

        @functools.partial(jax.jit, out_shardings=parallel.replicated(self._mesh))
        def record(variables: Any, images: jax.Array) -> dict[int, jax.Array]:
            images = evaluation.normalise(images, **self._pixels)
            call = {"train": False, "method": "record_inputs"}
            inputs: Any = model.apply(variables, images, self._layers, **call)[1]
            return inputs

        return jax.device_get(record(self._variables, image))

    def require_resumable(self, audited: AuditedNoise, batch_size: int) -> None:
        layer = self._first_layer(audited)
        if layer == 0:
            return
        rows = np.arange(min(batch_size, len(self._dataset)))
        images, kept = self.inputs(rows), self._clean.representations[layer].values[rows]
        logits: list[np.ndarray] = []  # without noise and with it
        for noisy, kind in ((False, "without noise"), (True, f"with {audited.words}")):
            injection = audited.injection if noisy else None
            model = self._model.clone(injection=injection)
            direct = self._function(model, noise=noisy, seed=0)(images)
            resumed = self._function(model, noise=noisy, seed=0, layer=layer)(kept)
            _require_equal(self._model, layer, kind, direct, resumed)
            logits.append(direct)
        self._require_effect(audited, *logits)

    def _require_effect(self, audited: AuditedNoise, clean: np.ndarray, noisy: np.ndarray) -> None:
        """Raises ValueError if the noise changes no logit, not even by rounding."""
        switched = noise.switch_for_evaluation(audited.injection)
        acts = any(each.inference and not each.noise.is_off for each in switched)
        if acts and len(clean) > 1 and np.array_equal(clean, noisy):
            raise ValueError(
                f"{audited.words} changes no logit of {len(clean)} images, so there is nothing to "
                f"audit: either its strength is too small, or {type(self._model).__name__} does "
                "not use the return value of taps(x, ...)"
            )

    def _first_layer(self, audited: AuditedNoise) -> int:
        assert audited.injection is not None, "the noise of a model is injected"
        return evaluation.first_noisy_layer(audited.injection, self._model.num_layers)

    def _function(
        self,
        model: nn.Module,
        *,
        noise: bool,
        seed: int,
        batch_size: int | None = None,
        layer: int | None = None,
    ) -> Callable[[np.ndarray], np.ndarray]:
        return functools.partial(
            evaluation.batch_logits,
            model,
            self._variables,
            noise=noise,
            seed=seed,
            batch_size=batch_size,
            layer=layer,
            classes=self._dataset.outputs,
            **self._pixels,
        )


def _require_equal(
    model: nn.Module, layer: int, kind: str, direct: np.ndarray, resumed: np.ndarray
) -> None:
    difference = float(np.abs(direct - resumed).max())
    eps = float(jax.numpy.finfo(getattr(model, "dtype", np.float32)).eps)
    allowed = max(1e-4, 32 * eps) * float(np.abs(direct).max()) + 1e-5
    if difference <= allowed:
        return
    name = model.layer_name(layer)
    raise ValueError(
        f"{type(model).__name__} cannot be resumed at layer {layer}, {name!r}: {kind}, logits "
        f"computed from that block's stored input differ from the model's own by "
        f"{difference:.3g} (allowed: {allowed:.2g}), so an audit would measure another model. "
        f"Either the noise of layer {layer} enters before its block (call the tap in run_block, "
        "for the layer that is run), or the rest of the model depends on more than that block's "
        "input"
    )
