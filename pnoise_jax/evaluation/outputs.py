"""The function that evaluations compile: from images to a model's outputs, under a protocol."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data
from pnoise_jax.evaluation.normalisation import normalise
from pnoise_jax.evaluation.protocols import Protocol
from pnoise_jax.evaluation.views import shifted_views
from pnoise_jax.noise import switch_for_evaluation

Strength = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class OutputProgram:
    """The program to compile, which is a static argument of jit.

    Attributes:
      model: a model with the injections that act, at strength 1.
      mean, std, views: as in `predict`.
      layer: the layer where representations enter; None if the inputs are images.
      draws: number of draws of the noise; their probabilities are averaged.
      classes: the outputs that count; None for all.
    """

    model: Any  # a Linen module; without mutable collections its apply returns one array
    mean: data.PixelMean
    std: tuple[float, ...]
    views: int
    layer: int | None = None
    draws: int = 1
    classes: tuple[int, ...] | None = None

    def outputs(self, variables, batch, key, strength) -> jax.Array:
        """Returns the model's outputs (batch, ...) for images or representations, such as logits.

        With several draws, for which outputs must be logits, returns the logarithm of the mean
        probabilities.
        """
        if self.draws == 1:
            return self._draw(variables, batch, key, strength)

        def draw(number: jax.Array) -> jax.Array:
            draw_key = jax.random.fold_in(key, number)
            return jax.nn.log_softmax(self._draw(variables, batch, draw_key, strength))

        drawn = jax.lax.map(draw, jnp.arange(self.draws, dtype=jnp.int32))
        return jax.nn.logsumexp(drawn, axis=0) - math.log(self.draws)

    def _draw(self, variables, batch, key, strength) -> jax.Array:
        repeat = functools.partial(jnp.repeat, repeats=self.views, axis=0)
        call = {
            "train": False,
            "mask": repeat(batch["mask"]),
            "index": repeat(batch["index"]),
            "noise_strength": strength,
            "rngs": {"noise": key},
        }
        if self.layer is not None:
            x = batch["representation"]
            outputs = self.model.apply(variables, x, self.layer, method="resume", **call)
            return of_classes(outputs, self.classes)
        images = shifted_views(batch["image"], self.views)
        outputs = self.model.apply(variables, normalise(images, self.mean, self.std), **call)
        outputs = of_classes(outputs, self.classes)
        return outputs.reshape(-1, self.views, *outputs.shape[1:]).mean(axis=1)


def of_classes(logits: jax.Array, classes: tuple[int, ...] | None) -> jax.Array:
    """Returns the logits (batch, classes) of some classes, in this order, or of all if None.

    Raises:
      ValueError: a class is not a column.
    """
    if classes and not 0 <= min(classes) <= max(classes) < logits.shape[1]:
        raise ValueError(
            f"classes go from {min(classes)} to {max(classes)}, but there are {logits.shape[1]} "
            "logits"
        )
    return logits if classes is None else logits[:, jnp.array(classes, jnp.int32)]


def with_protocol_noise(
    model: nn.Module, protocol: Protocol, strength: Strength | None, views: int
) -> tuple[nn.Module, np.ndarray | None]:
    """Returns the model with the protocol's noise at strength 1, and the strengths.

    With one injection the strength is a scalar, so that a model need not handle several; without
    noise it is None.
    """
    if protocol.weight_noise:
        raise ValueError(
            f"{protocol.name}: the task applies its noise on weights; call its evaluate, or give a "
            "robustness.AveragedModel and weight_noise=False"
        )
    if not protocol.noise:
        return model.clone(injection=None), None
    injections = switch_for_evaluation(model.injection)
    if not injections:
        raise ValueError(
            "this protocol has noise at inference, but the model has no injection; "
            "set noise.preset or noise.name"
        )
    count = len(injections)
    values = [i.noise.strength for i in injections] if strength is None else strength
    strengths = np.asarray(values, np.float32)
    if strengths.size != count:
        numbers = "give one number" if count == 1 else f"give a tuple of {count} numbers"
        raise ValueError(f"strength={strength}: the model has {count} injections; {numbers}")
    injections = tuple(
        (each.in_batches_of(protocol.batch_size * views) if each.inference else each).with_strength(
            1.0
        )
        for each in injections
    )
    if count == 1:
        return model.clone(injection=injections[0]), strengths.reshape(())
    return model.clone(injection=injections), strengths
