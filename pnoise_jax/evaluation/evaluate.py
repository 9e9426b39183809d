"""Evaluation: every example of a test set exactly once, by a protocol."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pnoise_jax import data, parallel
from pnoise_jax.evaluation.protocols import Protocol

EXAMPLES_PER_DEVICE = 256  # at a time, whatever the protocol's batch size


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model made of each example, in the data set's order.

    Attributes:
      rank: (n,) int32, how many classes the model prefers to the true one; 0 is a correct top-1.
      nll: (n,) float32, negative log-likelihood of the true class in nats.
    """

    rank: np.ndarray
    nll: np.ndarray

    def summary(self) -> dict[str, float | int]:
        """``top1`` and ``top5`` in percent, mean ``nll``, and ``n``."""
        return {
            "top1": 100 * float(np.mean(self.rank < 1)),
            "top5": 100 * float(np.mean(self.rank < 5)),
            "nll": float(np.mean(self.nll, dtype=np.float64)),
            "n": len(self.rank),
        }


def predict(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    protocol: Protocol,
    *,
    mesh: Mesh,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int = 0,
) -> Predictions:
    """Evaluates ``model`` on all of ``dataset``.

    The devices take many of the protocol's batches at once, each a group of its own to the noise.
    Random noise draws by (seed, example): neither the number of devices nor the order changes what
    an example receives. A random layer is drawn by (seed, batch).

    Args:
      model: with the injection to use where the protocol has noise; its own train and inference
        switches do not matter here.
      variables: of the model.
      dataset: the test set.
      protocol: noise or not, order, batch size.
      mesh: the devices.
      mean, std: one number per channel; images are normalised to ``(image / 255 - mean) / std``.
      seed: of the shuffled order and of random noise.

    Raises:
      ValueError: the protocol wants noise and the model has none, the noise's group size does not
        divide the batch size, or the logits of an example are not finite.
    """
    model = _with_noise(model, protocol)
    order = data.evaluation_order(dataset.labels, protocol.order, seed=seed)
    indices, at_once = _in_chunks(order, model, protocol.batch_size, mesh.size)
    sharding = parallel.split_batch(mesh)
    rank = np.full(len(dataset), -1, np.int32)
    nll = np.full(len(dataset), np.nan, np.float32)
    with data.eval_batches(
        dataset,
        indices=indices.ravel(),
        batch_size=at_once,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    ) as batches:
        for number, (index, batch) in enumerate(zip(indices, batches, strict=True)):
            scores = _score(
                model,
                (tuple(mean), tuple(std)),
                parallel.replicated(mesh),
                variables,
                parallel.to_devices(batch, sharding),
                np.uint32(seed),
                np.uint32(number if _draws_layer(model) else 0),
            )
            scores, real = jax.device_get(scores), index >= 0
            rank[index[real]] = scores["rank"][real]
            nll[index[real]] = scores["nll"][real]
    if not np.isfinite(nll).all():
        culprit = int(np.flatnonzero(~np.isfinite(nll))[0])
        raise ValueError(
            f"the logits of example {culprit} of {dataset.name}'s split {dataset.split!r} are not "
            f"finite ({protocol.name}); the weights, or the noise's strength, are at fault"
        )
    return Predictions(rank, nll)


def evaluate(
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: data.Dataset,
    protocols: tuple[Protocol, ...],
    **options: Any,
) -> list[dict[str, Any]]:
    """One row per protocol: its ``noise``, ``order``, ``batch_size``, and what `Predictions` sums.

    Args:
      model, variables, dataset: as `predict` takes them.
      protocols: such as `standard_protocols`.
      **options: `predict`'s mesh, mean, std and seed.
    """
    return [
        dataclasses.asdict(protocol)
        | predict(model, variables, dataset, protocol, **options).summary()
        for protocol in protocols
    ]


def _with_noise(model: nn.Module, protocol: Protocol) -> nn.Module:
    if not protocol.noise:
        return model.clone(injection=None)
    if model.injection is None:
        raise ValueError(
            "this protocol has noise at inference, but the model has no injection; "
            "set noise.preset or noise.name"
        )
    injection = model.injection.in_batches_of(protocol.batch_size)
    return model.clone(injection=dataclasses.replace(injection, inference=True))


def _draws_layer(model: nn.Module) -> bool:
    return model.injection is not None and model.injection.layer == "random"


def _in_chunks(
    order: np.ndarray, model: nn.Module, batch_size: int, devices: int
) -> tuple[np.ndarray, int]:
    """What the devices are given at a time: indices (chunks, examples), -1 for padding.

    A chunk holds whole batches of the protocol, and the devices share it evenly. It holds a single
    one, and padding, where the layer is drawn for each batch.
    """
    smallest = math.lcm(batch_size, devices)
    wanted = min(EXAMPLES_PER_DEVICE * devices, len(order))
    at_once = smallest * max(1, round(wanted / smallest))
    filled = at_once
    if _draws_layer(model):
        filled, at_once = batch_size, smallest
    chunks = -(-len(order) // filled)
    indices = np.full((chunks, at_once), -1, np.int32)
    padded = np.full(chunks * filled, -1, np.int32)
    padded[: len(order)] = order
    indices[:, :filled] = padded.reshape(chunks, filled)
    return indices, at_once


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _score(
    model, normalisation, replicated, variables, batch, seed, number
) -> dict[str, jax.Array]:
    mean, std = normalisation
    key = jax.random.fold_in(jax.random.key(seed), number)
    logits = model.apply(
        variables,
        normalise(batch["image"], mean, std),
        train=False,
        mask=batch["mask"],
        index=batch["index"],
        rngs={"noise": key},
    )
    labels = batch["label"][:, None]
    true = jnp.take_along_axis(logits, labels, axis=1)
    classes = jnp.arange(logits.shape[1])
    ahead = (logits > true) | ((logits == true) & (classes < labels))  # ties as argmax has them
    nll = jax.nn.logsumexp(logits, axis=1) - true[:, 0]
    scores = {"rank": ahead.sum(axis=1), "nll": nll}
    return jax.lax.with_sharding_constraint(scores, replicated)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 images (..., channels) to float32 ``(image / 255 - mean) / std``."""
    return (images.astype(jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)
