"""Evaluation of every example of a test set exactly once, by a protocol."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from pnoise_jax import data, parallel, stopping
from pnoise_jax.evaluation.normalisation import static_mean
from pnoise_jax.evaluation.outputs import OutputProgram, Strength, with_protocol_noise
from pnoise_jax.evaluation.predictions import Predictions, collect, fetch_behind, score_logits
from pnoise_jax.evaluation.protocols import Protocol
from pnoise_jax.evaluation.representations import Representations
from pnoise_jax.noise import as_injections

Score = Callable[[jax.Array, Mapping[str, jax.Array]], Mapping[str, jax.Array]]

EXAMPLES_PER_DEVICE = 256  # at once, approximately, for any batch size of the protocol


def predict(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    protocol: Protocol,
    *,
    mesh: Mesh,
    mean: data.PixelMean,
    std: tuple[float, ...],
    seed: int = 0,
    strength: Strength | None = None,
    views: int = 1,
    order: np.ndarray | None = None,
    representations: Representations | None = None,
    report: Callable[[str], None] | None = None,
) -> Predictions:
    """Evaluates ``model`` on all of ``dataset``.

    The devices process many batches of the protocol at once; the noise treats each batch as a
    separate group. Random noise is drawn by (seed, example), so an example's noise does not depend
    on the number of devices or on the order. A random layer is drawn by (seed, batch). Models that
    differ only in the strength of their noise share one compiled program.

    Args:
      model: a model with the injections to use if the protocol has noise. A single injection always
        acts. Of several, those with ``inference=True`` act, or all if none has it.
      variables: variables of the model.
      dataset: the test set. If it is restricted (`Dataset.restricted`), only the outputs for its
        classes count.
      protocol: whether there is noise, the order, and the batch size.
      mesh: the devices.
      mean, std: one number per channel; images are normalised to ``(image / 255 - mean) / std``.
      seed: seed of the shuffled order and of random noise.
      strength: replaces the strength of the injection; for several injections, one number each.
      views: number of views of each image, which are adjacent in the batch (`shifted_views`); the
        logits of an example are the mean over its views. All views have the same random noise.
      order: (n,) indices that replace the order of the protocol.
      representations: inputs of a layer for all examples, if there is no noise before that layer;
        the layers before it are then not computed again.
      report: called with a sentence about the progress, every half minute.

    Raises:
      ValueError: the protocol has noise but the model has none, the group size of the noise does
        not divide the batch size, noise enters before the representations, they are combined with
        several views, or the logits of an example are not finite.
      StoppedError: a signal arrived, and the main program listens for it; see `stopping`.
    """
    scores = score_examples(
        model,
        variables,
        dataset,
        protocol,
        _of_logits,
        mesh=mesh,
        mean=mean,
        std=std,
        seed=seed,
        strength=strength,
        views=views,
        order=order,
        representations=representations,
    )
    what = protocol.name if order is None else "noisy, in the given order"
    return collect(scores, dataset, what, report)


def score_examples(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    protocol: Protocol,
    score: Score,
    *,
    mesh: Mesh,
    mean: data.PixelMean,
    std: tuple[float, ...],
    seed: int = 0,
    strength: Strength | None = None,
    views: int = 1,
    order: np.ndarray | None = None,
    representations: Representations | None = None,
) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
    """Scores the model's output for each example with a function, batch by batch.

    Args:
      score: a function of the model's output (batch, ...) and the batch of `data.eval_batches`,
        which returns arrays (batch,) by name. It is compiled with the model. Define it in a module:
        each new lambda would be compiled again.
      model, variables, dataset, protocol, mesh, mean, std, seed, strength, views, order,
        representations: as in `predict`.

    Yields:
      Indices (b,), -1 for padding, and the arrays by name, (b,).

    Raises:
      ValueError, StoppedError: as `predict`, but values that are not finite are no error.
    """
    if representations is not None and views != 1:
        raise ValueError(
            f"views={views}: representations contain one view of each image; leave one of the two "
            "out"
        )
    model, strengths = with_protocol_noise(model, protocol, strength, views)
    program = OutputProgram(
        model,
        static_mean(mean),
        tuple(std),
        views,
        draws=protocol.draws,
        classes=dataset.outputs,
    )
    if representations is not None:
        representations.require_before(model)
        program = dataclasses.replace(program, layer=representations.layer)
    indices = data.evaluation_order(dataset.labels, protocol.order, seed=seed)
    indices, at_once = _in_chunks(
        indices if order is None else order, model, protocol.batch_size, parallel.batch_parts(mesh)
    )
    run = functools.partial(_score, program, score, parallel.replicated(mesh), variables)

    def scores() -> Iterator[tuple[np.ndarray, dict[str, jax.Array]]]:
        with _open_batches(dataset, representations, indices, at_once) as batches:
            for number, (index, batch) in enumerate(zip(indices, batches, strict=True)):
                stopping.check("while evaluating")
                batch = parallel.to_devices(batch, parallel.split_batch(mesh))
                drawn = np.uint32(number if _draws_layer(model) else 0)
                yield index, run(batch, np.uint32(seed), drawn, strengths)

    return fetch_behind(scores())


def _of_logits(logits: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return score_logits(logits, batch)


def batch_logits(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: np.ndarray,
    *,
    noise: bool,
    mean: data.PixelMean,
    std: tuple[float, ...],
    batch_size: int | None = None,
    seed: int = 0,
    layer: int | None = None,
    classes: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Returns the logits (b, classes), float32, of one batch or of several consecutive batches.

    Args:
      model, variables, mean, std, seed: as in `predict`. Random noise is drawn by position in
        ``inputs``.
      inputs: uint8 images (b, height, width, channels), or the inputs of ``layer``.
      noise: whether the model's injections act.
      batch_size: batch size of the protocol, a divisor of b; None for one batch of all inputs.
      layer: the layer from which the model resumes; None to start from images.
      classes: the model's outputs to return, such as `Dataset.outputs`; None for all.

    Raises:
      StoppedError: as `predict`.
    """
    stopping.check("while evaluating")
    protocol = Protocol(noise=noise, order="shuffled", batch_size=batch_size or len(inputs))
    model, strength = with_protocol_noise(model, protocol, None, 1)
    program = OutputProgram(model, static_mean(mean), tuple(std), 1, layer, classes=classes)
    name = "image" if layer is None else "representation"
    batch = {
        name: inputs,
        "mask": np.ones(len(inputs), bool),
        "index": np.arange(len(inputs), dtype=np.int32),
    }
    logits = _logits(program, variables, batch, np.uint32(seed), strength)
    return np.asarray(logits, np.float32)


def trace(
    model: nn.Module,
    variables: Mapping[str, Any],
    protocol: Protocol,
    *,
    images: tuple[int, int, int],
    size: int,
    mesh: Mesh,
    mean: data.PixelMean,
    std: tuple[float, ...],
    views: int = 1,
) -> tuple[jax.stages.Traced, int]:
    """Traces the step of `predict`, for devices that need not be present.

    Args:
      model, protocol, mesh, mean, std, views: as in `predict`.
      variables: shapes, dtypes and shardings of the model's collections.
      images: shape of the images.
      size: number of examples in the test set.

    Returns:
      The traced step, and its number of examples.
    """
    model, strengths = with_protocol_noise(model, protocol, None, views)
    program = OutputProgram(model, static_mean(mean), tuple(std), views, draws=protocol.draws)
    _, at_once = _in_chunks(np.arange(size), model, protocol.batch_size, parallel.batch_parts(mesh))
    split = parallel.split_batch(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((at_once, *shape), dtype, sharding=split)
        for name, shape, dtype in (
            ("image", images, np.uint8),
            ("label", (), np.int32),
            ("mask", (), np.bool_),
            ("index", (), np.int32),
        )
    }
    number = np.uint32(0)
    everywhere = parallel.replicated(mesh)
    traced = _score.trace(
        program, _of_logits, everywhere, variables, batch, number, number, strengths
    )
    return traced, at_once


def evaluate(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    protocols: Sequence[Protocol],
    **options: Any,
) -> list[dict[str, Any]]:
    """Returns one row per protocol: `Protocol.row`, and the summary of `Predictions`.

    Args:
      model, variables, dataset: as in `predict`.
      protocols: the protocols, such as `standard_protocols`.
      **options: mesh, mean, std, seed, views and report, as in `predict`.
    """
    return [
        protocol.row() | predict(model, variables, dataset, protocol, **options).summary()
        for protocol in protocols
    ]


@contextlib.contextmanager
def _open_batches(
    dataset: data.Dataset,
    representations: Representations | None,
    indices: np.ndarray,
    at_once: int,
) -> Iterator[Iterator[data.Batch]]:
    """Opens this host's batches of images, or of representations if there are any."""
    if representations is not None:
        yield representations.batches(dataset, indices)
        return
    with data.eval_batches(
        dataset,
        indices=indices.ravel(),
        batch_size=at_once,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    ) as batches:
        yield batches


def _draws_layer(model: nn.Module) -> bool:
    return any(each.inference and each.draws_layer for each in as_injections(model.injection))


def _in_chunks(
    order: np.ndarray, model: nn.Module, batch_size: int, devices: int
) -> tuple[np.ndarray, int]:
    """Cuts an order into chunks, which the devices process at once.

    A chunk contains whole batches of the protocol, divided evenly among the devices. If it is not
    too large, each batch is on a single device, so that noise over the batch needs no
    communication. If the layer is drawn for each batch, a chunk contains one batch and padding.

    Returns:
      Indices (chunks, examples), -1 for padding, and the number of examples in a chunk.
    """
    smallest = batch_size * devices
    wanted = min(EXAMPLES_PER_DEVICE * devices, len(order))
    if smallest > max(wanted, devices):
        smallest = math.lcm(batch_size, devices)
    at_once = smallest * max(1, round(wanted / smallest))
    filled = at_once
    if _draws_layer(model):
        filled, at_once = batch_size, math.lcm(batch_size, devices)
    chunks = -(-len(order) // filled)
    indices = np.full((chunks, at_once), -1, np.int32)
    padded = np.full(chunks * filled, -1, np.int32)
    padded[: len(order)] = order
    indices[:, :filled] = padded.reshape(chunks, filled)
    return indices, at_once


def _lay_out(model: nn.Module, mesh: Mesh) -> contextlib.AbstractContextManager:
    """Returns a context in which devices split matrix products as in training, if they do."""
    if parallel.batch_parts(mesh) == mesh.size:
        return contextlib.nullcontext()
    return parallel.lay_out(mesh, getattr(model, "matmul_split", None))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _score(
    program, score, replicated, variables, batch, seed, number, strength
) -> dict[str, jax.Array]:
    key = jax.random.fold_in(jax.random.key(seed), number)
    with _lay_out(program.model, replicated.mesh):
        scores = score(program.outputs(variables, batch, key, strength), batch)
    return jax.lax.with_sharding_constraint(scores, replicated)


@functools.partial(jax.jit, static_argnums=0)
def _logits(program, variables, batch, seed, strength) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed), 0)  # as in `predict`
    return program.outputs(variables, batch, key, strength)
