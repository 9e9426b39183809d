"""Features and logits of every image of a data set, in evaluation mode."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from pnoise_jax import data, evaluation, parallel, stopping
from pnoise_jax.adaptation.discriminators import find_sown


def embed(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    *,
    mesh: Mesh,
    mean: data.PixelMean,
    std: tuple[float, ...],
    sown: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a stored intermediate and the logits for each image, without noise.

    Labels are not used.

    Args:
      model: a classifier.
      variables: the model's variables.
      dataset: n images, preprocessed for the model.
      mesh: the devices.
      mean: mean of each channel, for images in [0, 1], or a mean image.
      std: standard deviation of each channel.
      sown: name of an intermediate, (batch, dim), that the model stores.

    Returns:
      (n, dim) and (n, classes), float32, in the data set's order; the same on every host.

    Raises:
      StoppedError: the main program received a signal to stop; see `stopping`.
    """
    model = model.clone(injection=None)
    size = len(dataset)
    at_once = parallel.batch_parts(mesh) * min(
        evaluation.EXAMPLES_PER_DEVICE, -(-size // parallel.batch_parts(mesh))
    )
    call = functools.partial(
        _embed,
        model,
        evaluation.static_mean(mean),
        tuple(std),
        sown,
        parallel.replicated(mesh),
        variables,
    )

    def results() -> Iterator[tuple[jax.Array, jax.Array]]:
        with data.eval_batches(
            dataset,
            indices=np.arange(size),
            batch_size=at_once,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ) as batches:
            for number, batch in enumerate(batches):
                stopping.check("while preparing batches")
                images = {"image": batch["image"]}
                yield call(parallel.to_devices(images, parallel.split_batch(mesh))["image"])
                done = min(size, (number + 1) * at_once)
                parallel.note_progress(f"features of {dataset.name}, {done} of {size} images")

    features, logits = zip(*evaluation.fetch_behind(results()), strict=True)
    return np.concatenate(features)[:size], np.concatenate(logits)[:size]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _embed(model, mean, std, sown, everywhere, variables, images) -> tuple[jax.Array, jax.Array]:
    logits, stored = model.apply(
        variables,
        evaluation.normalise(images, mean, std),
        train=False,
        mutable=["intermediates"],
    )
    features = find_sown(stored["intermediates"], sown)
    return jax.lax.with_sharding_constraint((features, logits), everywhere)
