"""TVT: transferable vision transformers, with discriminators for images and for patches."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from pnoise_jax import data, models
from pnoise_jax.adaptation.dann import Dann
from pnoise_jax.adaptation.discriminators import TransferGate, find_sown, reversal_coefficient
from pnoise_jax.adaptation.losses import domain_accuracy, domain_loss
from pnoise_jax.adaptation.task import LOSS, PERCENT
from pnoise_jax.evaluation import Measure
from pnoise_jax.training import Metrics, State, StepContext

PUBLISHED_STEPS = 10_000  # length of the reversal's schedule in the published code


@dataclasses.dataclass(frozen=True)
class GateFactory:
    """Creates the gate of the last block. Instances with the same settings are equal."""

    prefix_tokens: int
    detach: bool
    dropout: float

    def __call__(self, *, train: bool, name: str) -> TransferGate:
        """Returns the gate as a submodule."""
        return TransferGate(**dataclasses.asdict(self), train=train, name=name)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Tvt(Dann):
    """TVT (https://arxiv.org/abs/2108.05988) on any transformer with a class token.

    In addition to the terms of `Dann`, a domain discriminator classifies the keys of the patches in
    each head of the last block. The class token's attention to a patch is multiplied by the entropy
    of this discriminator, so patches that look alike in both domains count more. The defaults are
    the published settings for Office-Home.

    Attributes, in addition to those of every `Dann`:
      patch_weight: weight of the patch discriminator's loss; 0 turns it off.
      detach: whether to stop the gradient at the entropies that multiply the attention, as the
        paper's description suggests; False matches the published code.
      published_schedule: whether the reversal's schedule spans 10 000 steps for any length of the
        run, and half as many for patches, as in the published code; if not, it spans the run.
    """

    domain_weight: float = 0.1
    information_weight: float = 0.1
    patch_weight: float = 0.01
    detach: bool = True
    published_schedule: bool = False

    step_measures: ClassVar[tuple[Measure, ...]] = (
        *Dann.step_measures,
        LOSS("patch_loss", "patch loss"),
        PERCENT("patch_accuracy", "patch accuracy"),
    )

    @classmethod
    def prepare_model(cls, model: models.Classifier, **options: Any) -> models.Classifier:
        """Returns the model with the gate in its last block.

        Raises:
          ValueError: the model is not a transformer, or it has no class token or does not pool by
            it.
        """
        prefix = model.prefix_tokens
        has_class_token = prefix > 0 and getattr(model, "class_token", True)
        if (
            not hasattr(model, "key_gate")
            or not has_class_token
            or getattr(model, "distilled", False)
        ):
            raise ValueError(
                f"{type(model).__name__} is not a transformer with a class token, which TVT needs: "
                "choose one, for example vit_b_16, or task.name='dann'"
            )
        if getattr(model, "pooling", "token") != "token":
            raise ValueError(
                f"model.pooling={model.pooling!r}: TVT weights the class token's attention, so set "
                "model.pooling='token'"
            )
        gate = GateFactory(
            prefix_tokens=prefix,
            detach=options.get("detach", cls.detach),
            dropout=options.get("discriminator_dropout", cls.discriminator_dropout),
        )
        return model.clone(key_gate=gate)

    def coefficient(self, step: jax.Array) -> jax.Array:
        """Returns the factor of the gradient reversal before the features, at a step."""
        if self.published_schedule and self.reverse:
            return reversal_coefficient((step + 1) / jnp.float32(PUBLISHED_STEPS))
        return super().coefficient(step)

    def patch_coefficient(self, step: jax.Array, *, domain: str) -> jax.Array:
        """Returns the factor of the gradient reversal before the keys, at a step.

        The published schedule counts the pass of each domain as a step, and all steps from 1.
        """
        if self.published_schedule and self.reverse:
            calls = 2 * step + (2 if domain == "target" else 1)
            return reversal_coefficient(calls / jnp.float32(PUBLISHED_STEPS))
        return super().coefficient(step)

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """Returns the weighted sum of the terms, and each term as a metric."""
        source, state, source_keys = self._pass(params, state, batch["image"], context, "source")
        target, state, target_keys = self._pass(
            params, state, batch["target_image"], context, "target"
        )
        logits, state, _ = self.classify(params, state, source, context, domain="source")
        loss, metrics = self.source_loss(logits, batch["label"])
        patch_loss = domain_loss(source_keys, target_keys)
        metrics |= {
            "patch_loss": patch_loss,
            "patch_accuracy": domain_accuracy(source_keys, target_keys),
        }
        loss = loss + self.patch_weight * patch_loss
        for term, more in (
            self._domain_term(params, source, target, context),
            self._information_term(params, state, target, context),
        ):
            loss, metrics = loss + term, metrics | more
        return loss, (state, metrics)

    def _pass(
        self, params: Any, state: State, images: Any, context: StepContext, domain: str
    ) -> tuple[jax.Array, State, jax.Array]:
        """Returns the features (batch, dim), the state, and (batch, patches, heads) logits."""
        coefficient = self.patch_coefficient(context.step, domain=domain)
        last = self.model.layer_name(self.model.num_layers)
        features, state, stored = self.features(
            params,
            state,
            self.normalise(images),
            context,
            domain=domain,
            store=("intermediates",),
            coefficients={last: {"attn": {"key_gate": {"reversal": coefficient}}}},
        )
        return features, state, find_sown(stored["intermediates"], "domain_logits")
