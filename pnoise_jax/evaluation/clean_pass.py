"""The clean pass: evaluates without noise, and keeps the inputs of layers for noisy evaluations."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from pnoise_jax import data, parallel, stopping
from pnoise_jax.evaluation.evaluate import EXAMPLES_PER_DEVICE
from pnoise_jax.evaluation.normalisation import normalise, static_mean
from pnoise_jax.evaluation.outputs import of_classes
from pnoise_jax.evaluation.predictions import Predictions, collect, fetch_behind, score_logits
from pnoise_jax.evaluation.representations import Representations, allocate


@dataclasses.dataclass(frozen=True, eq=False)
class CleanPass:
    """The outputs of a model without noise on a test set, in the data set's order.

    Attributes:
      predictions: the predictions for each example.
      logits: (n, classes) float32.
      representations: the inputs of the requested layers, by layer.
    """

    predictions: Predictions
    logits: np.ndarray
    representations: dict[int, Representations]


def clean_pass(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    *,
    layers: tuple[int, ...],
    mesh: Mesh,
    mean: data.PixelMean,
    std: tuple[float, ...],
    scratch: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> CleanPass:
    """Evaluates ``model`` without noise, and keeps the inputs of ``layers``.

    Args:
      model, variables, dataset, mesh, mean, std: as in `predict`.
      layers: the layers whose inputs are kept, counted from 1.
      scratch: directory for representations that are too large for memory.
      report: called with a sentence about the progress, every half minute.

    Raises:
      ValueError: the logits of an example are not finite.
      OSError: there is not enough disk space for the representations.
      StoppedError: as `predict`.
    """
    parts = parallel.batch_parts(mesh)
    at_once = parts * min(EXAMPLES_PER_DEVICE, -(-len(dataset) // parts))
    indices = np.full(-(-len(dataset) // at_once) * at_once, -1, np.int32)
    indices[: len(dataset)] = np.arange(len(dataset))
    program = model.clone(injection=None), layers, static_mean(mean), tuple(std), dataset.outputs
    run = functools.partial(_run, program, parallel.replicated(mesh), variables)
    outputs = _outputs(run, dataset, indices.reshape(-1, at_once), mesh)
    kept: dict[int, np.ndarray] = {}
    logits = np.empty((0, 0), np.float32)  # until the number of classes is known

    def scores():
        nonlocal logits
        for index, (batch_logits, inputs, batch_scores) in fetch_behind(outputs):
            if not len(logits):
                logits = np.empty((len(dataset), batch_logits.shape[1]), np.float32)
                kept.update(allocate(len(dataset), inputs, scratch))
            real = index >= 0
            logits[index[real]] = batch_logits[real]
            for layer, x in inputs.items():
                kept[layer][index[real]] = x[real]
            yield index, batch_scores

    predictions = collect(scores(), dataset, "clean", report)
    representations = {layer: Representations(layer, values) for layer, values in kept.items()}
    return CleanPass(predictions, logits, representations)


def _outputs(
    run: Callable, dataset: data.Dataset, indices: np.ndarray, mesh: Mesh
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yields the rows of indices (batches, examples), and the result of `run` for each batch."""
    with data.eval_batches(
        dataset,
        indices=indices.ravel(),
        batch_size=indices.shape[1],
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    ) as batches:
        for index, batch in zip(indices, batches, strict=True):
            stopping.check("while evaluating")
            yield index, run(parallel.to_devices(batch, parallel.split_batch(mesh)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(program, replicated, variables, batch):
    model, layers, mean, std, classes = program
    images = normalise(batch["image"], mean, std)
    if layers:
        logits, inputs = model.apply(variables, images, layers, train=False, method="record_inputs")
    else:  # works for any module
        logits, inputs = model.apply(variables, images, train=False), {}
    logits = of_classes(logits, classes)
    outputs = logits, inputs, score_logits(logits, batch)
    return jax.lax.with_sharding_constraint(outputs, replicated)
