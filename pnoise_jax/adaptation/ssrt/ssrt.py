"""SSRT: safe self-refinement; an image and its perturbed copy should get the same prediction."""

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from pnoise_jax import data, models
from pnoise_jax.adaptation.discriminators import (
    find_sown,
    reversal_coefficient,
    reverse_gradient,
)
from pnoise_jax.adaptation.losses import (
    confident_divergence,
    domain_accuracy,
    domain_loss,
    information_maximisation,
)
from pnoise_jax.adaptation.ssrt.bottleneck import FEATURES, HeadFactory, TwoLayers
from pnoise_jax.adaptation.ssrt.perturbation import IMAGE, with_perturbed
from pnoise_jax.adaptation.ssrt.safe_training import SafeTraining
from pnoise_jax.adaptation.task import LOSS, PERCENT, AdaptationTask
from pnoise_jax.evaluation import Measure
from pnoise_jax.training import OWN_PARAMETERS, Metrics, State, StepContext

_SAFE, _SNAPSHOT = "safe_training", "snapshot"  # collections of the task


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Ssrt(AdaptationTask):
    """SSRT (https://arxiv.org/abs/2204.07683) on any model, with the published settings.

    The loss is the sum of the source's cross-entropy; domain_weight times the loss of a
    discriminator on the bottleneck's features, whose gradient is reversed; self_weight times the
    divergence between the predictions for a target image and for its perturbed copy; and
    information_weight times information maximisation on the target, in bits. Each step draws a
    layer and perturbs the copies at its input with the noise `Reverse`, through which no gradient
    flows. The strength of the noise and self_weight rise along the ramp of `SafeTraining`.

    Attributes, in addition to those of every `AdaptationTask`:
      layers: where copies can be perturbed: layer numbers from 1, or "image"; by default three
        layers, a third of the model's depth apart: 1, 5 and 9 of 12.
      strength: the share of the other image in a perturbed copy.
      threshold: a prediction counts only if its largest probability is above this.
      domain_weight: weight of the discriminator's loss; 0 turns it off.
      self_weight: weight of the divergence; 0 turns it off, and also the perturbed copies and safe
        training.
      information_weight: weight of information maximisation; 0 turns it off.
      bottleneck_dim: number of features of the head's bottleneck; the published value is 2048 for
        Office-Home and 1024 otherwise.
      dropout: dropout rate of the head and the discriminator.
      reversal_max, reversal_steps: the reversal's coefficient at step i is
        reversal_max * (2 / (1 + exp(-i / reversal_steps)) - 1), for any length of the run.
      safe_training: whether to use the ramp and the snapshots; if not, the ramp is always 1.
      check_every: number of steps between the checks of safe training.
      scales: a check splits these steps into up to 2^scales parts.
      published_restore: whether a check only restarts the ramp and restores no weights, as in the
        published code, whose snapshot was not a copy. If so, no snapshot is kept.
    """

    layers: tuple[int | str, ...] = ()
    strength: float = 0.3
    threshold: float = 0.4
    domain_weight: float = 2.0
    self_weight: float = 0.2
    information_weight: float = 0.0
    bottleneck_dim: int = 1024
    dropout: float = 0.5
    reversal_max: float = 0.1
    reversal_steps: float = 1000.0
    safe_training: bool = True
    check_every: int = 1000
    scales: int = 4
    published_restore: bool = False

    step_measures: ClassVar[tuple[Measure, ...]] = (
        *AdaptationTask.step_measures,
        LOSS("domain_loss", "domain loss"),
        PERCENT("domain_accuracy", "domain accuracy"),
    )

    @classmethod
    def prepare_model(cls, model: models.Classifier, **options: Any) -> models.Classifier:
        """Replaces the model's last dense layer with the bottleneck and its classifier."""
        dim = options.get("bottleneck_dim", cls.bottleneck_dim)
        dropout = options.get("dropout", cls.dropout)
        return model.clone(classifier_head=HeadFactory(dim=dim, dropout=dropout))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model.classifier_head, HeadFactory):
            raise ValueError("the model has no bottleneck: pass Ssrt.prepare_model(model)")
        for name, low, high in (
            ("strength", 0, 1),
            ("threshold", 0, 1),
            ("reversal_max", 0, float("inf")),
        ):
            if not low <= getattr(self, name) <= high:
                allowed = f"at least {low}" if high > 1 else f"from {low} to {high}"
                raise ValueError(f"{name}={getattr(self, name)!r}: give a number {allowed}")
        if not self.reversal_steps > 0:
            raise ValueError(f"reversal_steps={self.reversal_steps!r}: give a number above 0")
        self._check_layers()
        _ = self._safety  # checks its settings

    def _check_layers(self) -> None:
        depth = self.model.num_layers
        for layer in self.layers:
            is_layer = type(layer) is int and 1 <= layer <= depth
            if layer != "image" and not is_layer:
                raise ValueError(
                    f"layers={tuple(self.layers)!r}: give layers of this model, 1 to {depth}, or "
                    f"'image'; {layer!r} is neither"
                )
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers={tuple(self.layers)!r}: name each layer once")

    def check(self) -> None:
        """Raises ValueError if the method cannot use the domains, the weights or the batch size."""
        super().check()
        config = self.require_setup().config
        if config.weights is not None and config.weights_head != "fresh":
            raise ValueError(
                f"weights_head={config.weights_head!r}: SSRT's head has extra layers, which the "
                "weights of a plain model lack; set weights_head='fresh'"
            )
        if self.self_weight and config.batch_size // config.accumulate < 2:
            raise ValueError(
                f"batch_size={config.batch_size} with accumulate={config.accumulate}: an image is "
                "perturbed with another one of its micro-batch; give each at least 2 images"
            )

    @functools.cached_property
    def places(self) -> tuple[int, ...]:
        """Where copies can be perturbed, in the model's order: layer numbers, 0 for the image."""
        depth = self.model.num_layers
        layers = self.layers or {1 + third * depth // 3 for third in range(3)}
        return tuple(sorted(IMAGE if layer == "image" else int(layer) for layer in layers))

    @functools.cached_property
    def _safety(self) -> SafeTraining | None:
        """The safe training; None if it is off or there are no perturbed copies."""
        if not self.safe_training:
            if self.published_restore:
                raise ValueError(
                    "published_restore=True with safe_training=False: nothing is restored without "
                    "safe training; leave published_restore out, or set safe_training=True"
                )
            return None
        try:
            return SafeTraining(self.check_every, self.scales) if self.self_weight else None
        except ValueError as error:
            raise ValueError(f"check_every={self.check_every!r}: {error}") from error

    def init(self, key: jax.Array, images: jax.ShapeDtypeStruct) -> dict[str, Any]:
        """Returns the variables of the model, the discriminator and safe training."""
        variables = super().init(key, images)
        example = jnp.zeros((1, self.bottleneck_dim), jnp.float32)
        discriminator = self._discriminator(train=False).init(jax.random.fold_in(key, 1), example)
        params = {**variables["params"], OWN_PARAMETERS: {"discriminator": discriminator["params"]}}
        safe = {} if self._safety is None else {_SAFE: self._safety.init(self.model.num_classes)}
        return {**variables, "params": params, **safe}

    def after_init(self, state: Any) -> Any:
        """Returns the state with the first snapshot."""
        if self._safety is None or self.published_restore:
            return state
        return state.replace(
            task={**state.task, _SNAPSHOT: jax.tree.map(jnp.copy, _weights(state))}
        )

    def after_update(self, state: Any, context: StepContext) -> Any:
        """Ends a step of safe training, which may restore the snapshot's weights."""
        if self._safety is None:
            return state
        snapshot = state.task.get(_SNAPSHOT)
        current = None if snapshot is None else _weights(state)
        safe, current, snapshot = self._safety.end_step(
            state.task[_SAFE], current, snapshot, step=context.step
        )
        if current is None:
            return state.replace(task={**state.task, _SAFE: safe})
        return state.replace(**current, task={**state.task, _SAFE: safe, _SNAPSHOT: snapshot})

    def _discriminator(self, *, train: bool) -> TwoLayers:
        return TwoLayers(
            hidden_dim=self.bottleneck_dim, out_dim=1, dropout=self.dropout, train=train
        )

    def coefficient(self, step: jax.Array) -> jax.Array:
        """Returns the factor of the gradient reversal before the bottleneck, at a step."""
        progress = step.astype(jnp.float32) / self.reversal_steps
        return self.reversal_max * reversal_coefficient(progress, steepness=1.0)

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """Returns the weighted sum of the terms, and each term as a metric."""
        images, target = self.normalise(batch["image"]), self.normalise(batch["target_image"])
        ramp = jnp.ones((), jnp.float32)
        if self._safety is not None:
            ramp = self._safety.ramp(state[_SAFE], context.step)
        source, state, _ = self.features(params, state, images, context, domain="source")
        features = [source]
        if self.self_weight:
            *both, state = self.perturbed_features(
                params, state, target, context, self.strength * ramp
            )
            features += both
        else:
            target, state, _ = self.features(params, state, target, context, domain="target")
            features.append(target)
        # In one call, so the head's batch norm normalises all rows together.
        logits, state, stored = self.classify(
            params, state, jnp.concatenate(features), context, domain="source"
        )
        bottleneck = find_sown(stored["intermediates"], FEATURES)[: 2 * len(source)]
        source, target, *perturbed = jnp.split(logits, len(features))
        loss, metrics = self.source_loss(source, batch["label"])
        terms = [self._domain_term(params, bottleneck, context)]
        if self.information_weight:
            information = information_maximisation(target)
            terms.append((self.information_weight * information, {"information": information}))
        if perturbed:
            terms.append(self._self_term(target, perturbed[0], ramp, context))
            state, more = self._note(state, target, ramp)
            metrics |= more
        for term, more in terms:
            loss, metrics = loss + term, metrics | more
        return loss, (state, metrics)

    def perturbed_features(
        self,
        params: Any,
        state: State,
        images: jax.Array,
        context: StepContext,
        strength: jax.Array,
    ) -> tuple[jax.Array, jax.Array, State]:
        """Returns the features of images, of copies perturbed at a drawn layer, and the state."""
        number = jax.random.randint(
            context.keys["perturbed_layer"], (), 0, len(self.places), dtype=jnp.int32
        )
        return with_perturbed(
            functools.partial(self._stretch, params, context),
            state,
            images,
            places=self.places,
            drawn=jnp.asarray(self.places, jnp.int32)[number],
            strength=strength,
        )

    def _stretch(
        self,
        params: Any,
        context: StepContext,
        state: State,
        x: jax.Array,
        *,
        start: int,
        end: int | Literal["features"],
        domain: str,
    ) -> tuple[jax.Array, State]:
        """Runs the layers from `start` up to, but not including, `end`, with the domain's noise."""
        x, state, _ = self.features(params, state, x, context, start=start, end=end, domain=domain)
        return x, state

    def _domain_term(
        self, params: Any, bottleneck: jax.Array, context: StepContext
    ) -> tuple[jax.Array, Metrics]:
        """Returns the discriminator's weighted loss on both domains, and its metrics."""
        logits = self._discriminator(train=True).apply(
            {"params": params[OWN_PARAMETERS]["discriminator"]},
            reverse_gradient(bottleneck, self.coefficient(context.step)),
            rngs={"dropout": context.keys["discriminator_dropout"]},
        )
        domains = jnp.split(jnp.asarray(logits)[..., 0], 2)
        loss = domain_loss(*domains)
        metrics = {"domain_loss": loss, "domain_accuracy": domain_accuracy(*domains)}
        return self.domain_weight * loss, metrics

    def _self_term(
        self, clean: jax.Array, perturbed: jax.Array, ramp: jax.Array, context: StepContext
    ) -> tuple[jax.Array, Metrics]:
        """Returns the weighted divergence of two predictions, in a direction drawn each step."""
        divergence = functools.partial(confident_divergence, threshold=self.threshold)
        forward = jax.random.bernoulli(context.keys["direction"], jnp.float32(0.5))
        loss = jnp.where(forward, divergence(clean, perturbed), divergence(perturbed, clean))
        return self.self_weight * ramp * loss, {"self_loss": loss}

    def _note(self, state: State, logits: jax.Array, ramp: jax.Array) -> tuple[State, Metrics]:
        """Returns the state after the target's predictions, and the metrics of safe training."""
        if self._safety is None:
            return state, {}
        safe, diversity = self._safety.note(state[_SAFE], logits)
        metrics = {
            "ramp": ramp,
            "diversity": diversity.astype(jnp.float32),
            "restores": safe["restores"].astype(jnp.float32),
        }
        return {**state, _SAFE: safe}, metrics


def _weights(state: Any) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}
