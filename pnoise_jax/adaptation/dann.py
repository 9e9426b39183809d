"""Domain-adversarial training: learns features that do not reveal the domain."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from pnoise_jax import data
from pnoise_jax.adaptation.discriminators import (
    Discriminator,
    reversal_coefficient,
    reverse_gradient,
)
from pnoise_jax.adaptation.losses import (
    domain_accuracy,
    domain_loss,
    information_maximisation,
)
from pnoise_jax.adaptation.task import LOSS, PERCENT, AdaptationTask
from pnoise_jax.evaluation import Measure
from pnoise_jax.training import OWN_PARAMETERS, Metrics, State, StepContext


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Dann(AdaptationTask):
    """DANN (https://arxiv.org/abs/1505.07818), with optional information maximisation.

    The loss is the sum of the source's cross-entropy; domain_weight times the discriminator's loss,
    whose gradient is reversed before it reaches the features; and information_weight times the
    target's mean entropy minus the entropy of its mean prediction.

    Attributes, in addition to those of every `AdaptationTask`:
      domain_weight: weight of the discriminator's loss; 0 turns it off.
      information_weight: weight of information maximisation; 0 turns it off.
      hidden_dim: number of features of the discriminator's hidden layers; None is a quarter of the
        model's features.
      reverse: whether to reverse the gradient; if not, the discriminator does not affect the model.
      discriminator_dropout: dropout rate after each hidden layer of the discriminator.
    """

    domain_weight: float = 1.0
    information_weight: float = 0.0
    hidden_dim: int | None = None
    reverse: bool = True
    discriminator_dropout: float = 0.5

    step_measures: ClassVar[tuple[Measure, ...]] = (
        *AdaptationTask.step_measures,
        LOSS("domain_loss", "domain loss"),
        PERCENT("domain_accuracy", "domain accuracy"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_dim is not None and self.hidden_dim < 1:
            raise ValueError(
                f"hidden_dim={self.hidden_dim!r}: give a number of at least 1, or None"
            )
        if not 0 <= self.discriminator_dropout < 1:
            raise ValueError(
                f"discriminator_dropout={self.discriminator_dropout!r}: give a rate in [0, 1)"
            )

    def init(self, key: jax.Array, images: jax.ShapeDtypeStruct) -> dict[str, Any]:
        """Returns the model's collections, and the discriminator's parameters."""
        variables = super().init(key, images)
        features = jax.eval_shape(
            lambda v, x: self.model.apply(v, x, end="features", method="forward"), variables, images
        )
        example = jnp.zeros((1, features.shape[-1]), jnp.float32)
        discriminator = self._discriminator(features.shape[-1], train=False).init(
            jax.random.fold_in(key, 1), example
        )
        params = {**variables["params"], OWN_PARAMETERS: {"global": discriminator["params"]}}
        return {**variables, "params": params}

    def _discriminator(self, dim: int, *, train: bool) -> Discriminator:
        hidden_dim = max(1, dim // 4) if self.hidden_dim is None else self.hidden_dim
        dropout = self.discriminator_dropout
        return Discriminator(hidden_dim=hidden_dim, dropout=dropout, train=train)

    def coefficient(self, step: jax.Array) -> jax.Array:
        """Returns the factor of the gradient reversal at a step; 0 if `reverse` is off."""
        if not self.reverse:
            return jnp.zeros((), jnp.float32)
        return reversal_coefficient(self.progress(step))

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """Returns the weighted sum of the terms, and each term as a metric."""
        images = self.normalise(batch["image"]), self.normalise(batch["target_image"])
        source, state, _ = self.features(params, state, images[0], context, domain="source")
        target, state, _ = self.features(params, state, images[1], context, domain="target")
        logits, state, _ = self.classify(params, state, source, context, domain="source")
        loss, metrics = self.source_loss(logits, batch["label"])
        for term, more in (
            self._domain_term(params, source, target, context),
            self._information_term(params, state, target, context),
        ):
            loss, metrics = loss + term, metrics | more
        return loss, (state, metrics)

    def _domain_term(
        self, params: Any, source: jax.Array, target: jax.Array, context: StepContext
    ) -> tuple[jax.Array, Metrics]:
        """Returns the discriminator's weighted loss on both domains' features, and its metrics."""
        both = jnp.concatenate([source, target])
        both = reverse_gradient(both, self.coefficient(context.step))
        logits = self._discriminator(both.shape[-1], train=True).apply(
            {"params": params[OWN_PARAMETERS]["global"]},
            both,
            rngs={"dropout": context.keys["discriminator_dropout"]},
        )
        domains = jnp.asarray(logits)
        domains = domains[: len(source)], domains[len(source) :]
        loss = domain_loss(*domains)
        metrics = {"domain_loss": loss, "domain_accuracy": domain_accuracy(*domains)}
        return self.domain_weight * loss, metrics

    def _information_term(
        self, params: Any, state: State, target: jax.Array, context: StepContext
    ) -> tuple[jax.Array, Metrics]:
        """Returns the weighted information maximisation on the target; 0 if it is off."""
        if not self.information_weight:
            return jnp.zeros((), jnp.float32), {}
        logits, _, _ = self.classify(params, state, target, context, domain="target")
        loss = information_maximisation(logits)
        return self.information_weight * loss, {"information": loss}
