"""The task of classification: cross-entropy with smoothed or mixed labels."""

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import optax

from pnoise_jax import data
from pnoise_jax.evaluation import Measure
from pnoise_jax.training.mixup import Mixing
from pnoise_jax.training.setup import Setup
from pnoise_jax.training.task import Metrics, State, StepContext, Task
from pnoise_jax.training.task_registry import TASKS


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Classification(Task):
    """Learns the labels of images.

    Takes the attributes of every `Task`, and these:

    Attributes:
      label_smoothing: share of the target spread evenly over all classes.
      mixing: of images and targets, within a micro-batch, before noise enters; None for none.
    """

    label_smoothing: float = dataclasses.field(default=0.0, metadata={"from_config": True})
    mixing: Mixing | None = dataclasses.field(default=None, metadata={"from_config": True})

    step_measures: ClassVar[tuple[Measure, ...]] = (Measure("top1", "top-1", 1, "percent"),)

    @classmethod
    def from_setup(cls, setup: Setup, **options: Any) -> Self:
        """With the config's label smoothing and mixup."""
        mixing = Mixing(**setup.config.mixup)
        return super().from_setup(
            setup,
            label_smoothing=setup.config.label_smoothing,
            mixing=mixing if mixing.is_on else None,
            **options,
        )

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """The cross-entropy.

        top1 is in percent; of mixed examples it counts the label of the one that another is mixed
        into.
        """
        images, targets = self.inputs(batch, context)
        return self.cross_entropy(params, state, images, targets, batch["label"], context)

    def inputs(self, batch: data.Batch, context: StepContext) -> tuple[jax.Array, jax.Array]:
        """Normalised images, and targets (batch, classes); smoothed and mixed."""
        images = self.normalise(batch["image"])
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], self.model.num_classes, dtype=jnp.float32),
            self.label_smoothing,
        )
        if self.mixing is not None:
            images, targets = self.mixing(context.keys["mixup"], images, targets)
        return images, targets

    def cross_entropy(
        self,
        params: Any,
        state: State,
        images: jax.Array,
        targets: jax.Array,
        labels: Any,
        context: StepContext,
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """What `loss` returns, of the images and targets that `inputs` gives."""
        logits, state = self.apply(params, state, images, context)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        top1 = 100 * (logits.argmax(-1) == labels).mean(dtype=jnp.float32)
        return loss, (state, {"top1": top1})


TASKS.register("classification", Classification)
