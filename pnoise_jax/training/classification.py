"""The task of classification: cross-entropy with smoothed or mixed labels."""

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import optax

from pnoise_jax import data, noise
from pnoise_jax.evaluation import Measure
from pnoise_jax.training.setup import Setup
from pnoise_jax.training.step import noise_labels
from pnoise_jax.training.step.mixup import Mixing
from pnoise_jax.training.task import TARGET_FIELDS, Metrics, State, StepContext, Task
from pnoise_jax.training.task_registry import TASKS


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Classification(Task):
    """Learns the labels of images.

    It has the attributes of every `Task`, and these:

    Attributes:
      label_smoothing: share of the target to spread evenly over all classes.
      mixing: how to mix images, or the input of a layer, and targets within a micro-batch; None
        turns it off. Images are mixed before the noise is injected.
      labels_follow_noise: whether to mix the targets as the model's noise mixes the examples in
        training: mixup with the noise's matrix.

    Raises:
      ValueError: the model has no layer `mixing.layer`.
    """

    label_smoothing: float = dataclasses.field(default=0.0, metadata={"from_config": True})
    mixing: Mixing | None = dataclasses.field(default=None, metadata={"from_config": True})
    labels_follow_noise: bool = dataclasses.field(default=False, metadata={"from_config": True})

    target_fields: ClassVar[tuple[str, ...] | None] = TARGET_FIELDS
    step_measures: ClassVar[tuple[Measure, ...]] = (Measure("top1", "top-1", 1, "percent"),)

    def __post_init__(self):
        if self.mixing is not None and self.mixing.layer:
            self._require_layer(self.mixing.layer)

    def check(self) -> None:
        """Raises ValueError if the labels cannot follow the noise; see `noise_labels`."""
        super().check()
        if self.labels_follow_noise:
            injections = noise.as_injections(self.model.injection)
            noise_labels.require_mixing(injections)
            if self.mixing is not None and self.mixing.layer:
                noise_labels.require_mixing([*injections, self.mixing.injection(3)])
            if self.setup is not None:
                noise_labels.require_mixing(self.setup.strongest_injections)

    @classmethod
    def from_setup(cls, setup: Setup, **options: Any) -> Self:
        """Create the task with the config's label smoothing and mixup."""
        section = dict(setup.config.mixup)
        labels_follow_noise = section.pop("labels_follow_noise")
        mixing = Mixing(**section)
        return super().from_setup(
            setup,
            label_smoothing=setup.config.label_smoothing,
            mixing=mixing if mixing.is_on else None,
            labels_follow_noise=labels_follow_noise,
            **options,
        )

    def describe_noise(self) -> list[str]:
        """Whether the labels are mixed by the noise."""
        follow = "the targets are mixed as the noise mixes the examples"
        return [*super().describe_noise(), *[follow] * self.labels_follow_noise]

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """The cross-entropy.

        The metric top1 is in percent. For a mixed example, it compares with the example's own
        label, not its partner's.
        """
        images, targets = self.inputs(batch, context)
        return self.cross_entropy(params, state, images, targets, batch["label"], context)

    def inputs(self, batch: data.Batch, context: StepContext) -> tuple[jax.Array, jax.Array]:
        """Normalised images and smoothed targets (batch, classes), both mixed if that is on."""
        images = self.normalise(batch["image"])
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], self.model.num_classes, dtype=jnp.float32),
            self.label_smoothing,
        )
        if self.mixing is not None and not self.mixing.layer:
            images, targets = self.mixing(context.keys["mixup"], images, targets)
        injections: list[noise.Injection] = []
        strengths: list[Any] = []
        if self.labels_follow_noise:
            injections += noise.as_injections(self.model.injection)
            strengths += noise_labels.strengths_of(injections, context.noise_strength)
        if self.mixing is not None and self.mixing.layer:
            injections.append(self.mixing.injection(len(images)))
            strengths.append(1 - self.mixing.draw_share(context.keys["mixup"]))
        if self.labels_follow_noise:
            noise_labels.require_mixing(injections)
        if injections:  # in the order of their layers, as the model mixes
            targets = noise_labels.mix_targets(
                injections, targets, strengths=strengths, num_layers=self.model.num_layers
            )
        return images, targets

    def apply(
        self, params: Any, state: State, images: jax.Array, context: StepContext
    ) -> tuple[jax.Array, State]:
        """Apply the model as `Task.apply` does, and mix the input of the layer `mixing.layer`."""
        if self.mixing is None or not self.mixing.layer:
            return super().apply(params, state, images, context)
        injections = noise.as_injections(self.model.injection)
        share = self.mixing.draw_share(context.keys["mixup"])
        strengths = (*noise_labels.strengths_of(injections, context.noise_strength), 1 - share)
        mixes = (*injections, self.mixing.injection(len(images)))
        mixed = dataclasses.replace(
            self, model=self.model.clone(injection=mixes), mixing=None, labels_follow_noise=False
        )
        strength = strengths if len(strengths) > 1 else strengths[0]
        context = dataclasses.replace(context, noise_strength=strength)
        return mixed.apply(params, state, images, context)

    def cross_entropy(
        self,
        params: Any,
        state: State,
        images: jax.Array,
        targets: jax.Array,
        labels: Any,
        context: StepContext,
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """The result of `loss` for the images and targets from `inputs`."""
        logits, state = self.apply(params, state, images, context)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        top1 = 100 * (logits.argmax(-1) == labels).mean(dtype=jnp.float32)
        return loss, (state, {"top1": top1})

    def _require_layer(self, layer: int) -> None:
        last = self.model.num_layers
        if layer > last:
            raise ValueError(
                f"mixup.layer={layer}: this model has no layer {layer}; its layers are 1 to "
                f"{last}, and 0 mixes the images"
            )


TASKS.register("classification", Classification)
