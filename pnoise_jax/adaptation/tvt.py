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

PUBLISHED_STEPS = 10_000  # of the reversal's schedule in the published code, whatever the run's


@dataclasses.dataclass(frozen=True)
class GateFactory:
    """Makes the gate of the last block; equal to others with the same settings."""

    prefix_tokens: int
    detach: bool
    dropout: float

    def __call__(self, *, train: bool, name: str) -> TransferGate:
        """The gate as a submodule."""
        return TransferGate(**dataclasses.asdict(self), train=train, name=name)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Tvt(Dann):
    """TVT (https://arxiv.org/abs/2108.05988) on any transformer with a class token.

    In addition to the terms of `Dann`, a domain discriminator reads the keys of the patches in each
    head of the last block, and the class token's attention to a patch is multiplied by that
    discriminator's entropy: patches that look alike in both domains count more. The defaults are
    the published settings for Office-Home.

    Attributes, in addition to those of every `Dann`:
      patch_weight: of the patch discriminator; 0 turns its loss off.
      detach: whether no gradient flows through these weights of the attention, as the paper's
        description suggests; False is the published code.
      published_schedule: the reversal's schedule counts to 10 000 whatever the length of the run,
        and twice as fast for patches, as in the published code; False counts the run's steps.
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
        """The model with the gate in its last block.

        Raises:
          ValueError: it has no class token, or it is not a transformer.
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
        """The factor of the reversal into the features."""
        if self.published_schedule and self.reverse:
            return reversal_coefficient(step / jnp.float32(PUBLISHED_STEPS))
        return super().coefficient(step)

    def patch_coefficient(self, step: jax.Array, *, domain: str) -> jax.Array:
        """The factor of the reversal into the keys; published, each domain's pass is a step."""
        if self.published_schedule and self.reverse:
            calls = 2 * step + (domain == "target")
            return reversal_coefficient(calls / jnp.float32(PUBLISHED_STEPS))
        return super().coefficient(step)

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """The sum of the terms, each of which is also logged."""
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
        """A domain's features (batch, dim), the state, and logits of (batch, patches, heads)."""
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
