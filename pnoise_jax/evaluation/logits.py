"""The function of a protocol from images to logits: what evaluations compile."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data
from pnoise_jax.data.image import require_statistics
from pnoise_jax.evaluation.protocols import Protocol
from pnoise_jax.evaluation.views import shifted_views
from pnoise_jax.noise import switch_for_evaluation

Strength = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class LogitsProgram:
    """What is compiled; a static argument of jit.

    Attributes:
      model: with the injections that act, of strength 1.
      mean, std, views: as `predict` has them.
      layer: where representations enter; None if the inputs are images.
      draws: of the noise, whose probabilities are averaged.
    """

    model: Any  # a Linen module, whose apply returns logits alone: nothing is mutable
    mean: data.PixelMean
    std: tuple[float, ...]
    views: int
    layer: int | None = None
    draws: int = 1

    def logits(self, variables, batch, key, strength) -> jax.Array:
        """The logits (batch, classes) of a batch of images or representations.

        Of several draws, the logarithm of the mean probabilities.
        """
        if self.draws == 1:
            return self._draw(variables, batch, key, strength)

        def draw(number: jax.Array) -> jax.Array:
            own_key = jax.random.fold_in(key, number)
            return jax.nn.log_softmax(self._draw(variables, batch, own_key, strength))

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
            return self.model.apply(variables, x, self.layer, method="resume", **call)
        images = shifted_views(batch["image"], self.views)
        logits = self.model.apply(variables, normalise(images, self.mean, self.std), **call)
        return logits.reshape(-1, self.views, logits.shape[-1]).mean(axis=1)


def with_protocol_noise(
    model: nn.Module, protocol: Protocol, strength: Strength | None, views: int
) -> tuple[nn.Module, np.ndarray]:
    """The model with the noises that act in this protocol, at strength 1; and their strengths.

    With one injection the strengths are a scalar, so that a model need not handle several.
    """
    if protocol.weight_noise:
        raise ValueError(
            f"{protocol.name}: the task knows its noise on weights; call its evaluate, or give a "
            "robustness.AveragedModel and weight_noise=False"
        )
    if not protocol.noise:
        return model.clone(injection=None), np.zeros((), np.float32)
    injections = switch_for_evaluation(model.injection)
    if not injections:
        raise ValueError(
            "this protocol has noise at inference, but the model has no injection; "
            "set noise.preset or noise.name"
        )
    count = len(injections)
    given = [i.noise.strength for i in injections] if strength is None else strength
    strengths = np.asarray(given, np.float32)
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


def static_mean(mean: Sequence[float] | data.PixelMean) -> data.PixelMean:
    """A mean that can be static to jit: numbers per channel as a tuple, a mean image as it is."""
    return mean if isinstance(mean, data.MeanImage) else tuple(mean)


def normalise(
    images: jax.Array | np.ndarray,
    mean: data.PixelMean,
    std: tuple[float, ...],
) -> jax.Array:
    """uint8 images (..., channels) to float32 ``(image / 255 - mean) / std``.

    A mean image is subtracted pixel by pixel, and nothing is divided by.

    Raises:
      ValueError: mean or std are not for pixels in [0, 1], but for pixels up to 255, for instance.
    """
    if isinstance(mean, data.MeanImage):
        return mean.subtract(images)
    require_statistics(prefix="", mean=mean, std=std)
    centred = jnp.asarray(images).astype(jnp.float32) / 255 - jnp.array(mean, jnp.float32)
    return centred / jnp.array(std, jnp.float32)
