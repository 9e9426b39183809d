"""Gaussian noise on weights, for a forward pass or after an update."""

import dataclasses
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax.training import RandomStreams, optimizer


@dataclasses.dataclass(frozen=True)
class WeightNoise:
    """``w + std * e``, ``e ~ N(0, 1)``, for parameters whose whole path matches a pattern.

    Each parameter has its own key, so its noise does not depend on which others have noise.

    Attributes:
      std: standard deviation, in the units of the weights, at least 0.
      on: regular expressions for paths such as "block_1/attn/qkv/kernel".
    """

    std: float
    on: tuple[str, ...] = (".*/kernel",)

    def __post_init__(self):
        if isinstance(self.on, str):
            raise ValueError(f"on={self.on!r}: give a tuple of patterns, such as ({self.on!r},)")
        object.__setattr__(self, "on", tuple(self.on))
        is_number = isinstance(self.std, int | float) and not isinstance(self.std, bool)
        if not is_number or not math.isfinite(self.std) or self.std < 0:
            raise ValueError(f"std={self.std!r}: give a finite number of at least 0")
        if not self.on:
            raise ValueError("on=(): name the parameters, such as ('.*/kernel',)")
        for pattern in self.on:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(
                    f"on={self.on!r}: {pattern!r} is not a valid regular expression ({error})"
                ) from error

    def perturb(
        self, key: jax.Array, params: Any, *, strength: jax.Array | float = 1.0
    ) -> dict[str, Any]:
        """Returns the parameters with noise; parameters without noise are the same arrays.

        Args:
          key: the key of one draw.
          params: a tree of arrays.
          strength: multiplies the standard deviation; may be traced.

        Raises:
          ValueError: a pattern matches no parameter, or one that is not floating-point.
        """
        self.require_fitting(params, None, field="on")

        def noisy(path: jax.tree_util.KeyPath, x: jax.Array) -> jax.Array:
            name = optimizer.path_name(path)
            if not self._fits(name):
                return x
            parameter_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
            e = jax.random.normal(parameter_key, x.shape, x.dtype)
            return x + jnp.asarray(strength * self.std, x.dtype) * e

        return jax.tree.map_with_path(noisy, params)

    def require_fitting(self, params: Any, frozen: Any, *, field: str) -> None:
        """Raises ValueError unless these parameters can have the noise.

        Args:
          params: arrays, or shapes and dtypes.
          frozen: a tree of the same structure, True for frozen parameters; None if none is frozen.
          field: the config field with the patterns, for errors.

        Raises:
          ValueError: a pattern matches no parameter, or one that is frozen or not floating-point.
        """
        optimizer.require_fitting(field, params, self.on)
        are_frozen = (
            [False] * len(jax.tree.leaves(params)) if frozen is None else jax.tree.leaves(frozen)
        )
        for (path, x), is_frozen in zip(jax.tree.leaves_with_path(params), are_frozen, strict=True):
            name = optimizer.path_name(path)
            if not self._fits(name):
                continue
            if is_frozen:
                raise ValueError(
                    f"{field}={self.on!r} matches {name}, which optimizer.freeze freezes: leave it "
                    "out of one of the two"
                )
            if not jnp.issubdtype(x.dtype, jnp.floating):
                raise ValueError(
                    f"{field}={self.on!r} matches {name}, whose dtype is {x.dtype}: only "
                    "floating-point parameters can have noise, so leave it out"
                )

    def _fits(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.on)


@dataclasses.dataclass(frozen=True)
class AveragedModel:
    """A model whose probabilities are the mean over several draws of its weights.

    It can replace a model in an evaluation, which uses only the methods and properties below.

    Attributes:
      model: the model to average.
      weight_noise: the noise on its parameters.
      draws: number of draws, at least 1; they are the same for all images.
      seed: seed of the draws.
      classes: the outputs to use, if not all; the others get probability 0.
    """

    model: nn.Module
    weight_noise: WeightNoise
    draws: int
    seed: int
    classes: tuple[int, ...] | None = None

    def __post_init__(self):
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 1:
            raise ValueError(f"draws={self.draws!r}: give a whole number of at least 1")

    @property
    def injection(self) -> Any:
        """The model's injection."""
        return getattr(self.model, "injection", None)

    def clone(self, **changes: Any) -> "AveragedModel":
        """Returns a copy with a changed model."""
        return dataclasses.replace(self, model=self.model.clone(**changes))

    def apply(self, variables: Mapping[str, Any], *args: Any, **call: Any) -> jax.Array:
        """Returns the log of the mean probabilities, (batch, num_classes), for use as logits."""
        key = RandomStreams(jax.random.key(self.seed))["weight_noise"]

        def draw(number: jax.Array) -> jax.Array:
            draw_key = jax.random.fold_in(key, number)
            params = self.weight_noise.perturb(draw_key, variables["params"])
            logits: Any = self.model.apply({**variables, "params": params}, *args, **call)
            if self.classes is not None:
                counts = jnp.isin(jnp.arange(logits.shape[-1]), jnp.array(self.classes))
                logits = jnp.where(counts, logits, -jnp.inf)
            return jax.nn.log_softmax(logits)

        drawn = jax.lax.map(draw, jnp.arange(self.draws, dtype=jnp.int32))
        return jax.nn.logsumexp(drawn, axis=0) - math.log(self.draws)
