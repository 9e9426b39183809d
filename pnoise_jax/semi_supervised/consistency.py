"""Consistency: two noisy views of an unlabelled image should get the same prediction."""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data, noise
from pnoise_jax.adaptation import PairedBatches, target_seed
from pnoise_jax.evaluation import Measure
from pnoise_jax.semi_supervised.batches import LabelledAndUnlabelled
from pnoise_jax.training import (
    TARGET_FIELDS,
    Classification,
    Metrics,
    RandomStreams,
    State,
    StepContext,
    StrengthSchedule,
)

_DIVERGENCES = ("kl", "mse")
_VIEWS = ("first_view", "second_view")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Consistency(Classification):
    """Learns from a few labels, and to predict the same for two noisy views of an image.

    The loss is the cross-entropy of labelled images, as in `Classification`, plus
    consistency_weight times the divergence between the predictions for two views of each unlabelled
    image (the Pi-model, https://arxiv.org/abs/1610.02242). A view is a forward pass in training
    mode, with the config's injections, in the image or in the latent, and dropout; each view has
    its own random streams. A batch has batch_size images of each kind. The unlabelled images are
    the whole training split.

    Noise that mixes the examples of a batch without randomness would make both views equal. So if
    any noise mixes examples, the second view has the batch in another random order, which gives
    each image other batch mates. The second term then penalises predictions that depend on these
    mates, whose labels are not used. The labelled images are mixed among themselves, as in
    classification.

    Has the attributes of `Classification`, and these:

    Attributes:
      labelled_per_class: number of images of each class that have a label, drawn with the run's
        seed.
      consistency_weight: weight of the second term; 0 turns it off, which leaves a supervised
        baseline with the same labels and steps.
      consistency_schedule: schedule of the weight's factor, such as "linear 0 to 1 over 10 epochs";
        None is constant.
      divergence: "kl", KL(first || second) in nats; or "mse", the squared difference of
        probabilities, summed over classes.
      stop_gradient: whether to stop the gradient at the first view's prediction.
    """

    labelled_per_class: int = 10
    consistency_weight: float = 1.0
    consistency_schedule: str | None = None
    divergence: str = "kl"
    stop_gradient: bool = True

    # Not mixup.layer, which would mix the unlabelled images of a view as well.
    target_fields: ClassVar[tuple[str, ...] | None] = tuple(
        name for name in TARGET_FIELDS if name != "mixup.layer"
    )
    step_measures: ClassVar[tuple[Measure, ...]] = (
        *Classification.step_measures,
        Measure("consistency", "consistency", 4, "nats or squared probability, mean"),
    )

    def __post_init__(self) -> None:
        weight = self.consistency_weight
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (is_number and 0 <= weight < math.inf):
            raise ValueError(
                f"consistency_weight={weight!r}: give a number of at least 0; 0 turns it off"
            )
        if not isinstance(self.stop_gradient, bool):
            raise ValueError(f"stop_gradient={self.stop_gradient!r}: give True or False")
        if self.divergence not in _DIVERGENCES:
            raise ValueError(
                f"divergence={self.divergence!r}: choose one of {', '.join(_DIVERGENCES)}"
            )
        if (text := self.consistency_schedule) is not None:
            StrengthSchedule.parse(text, field="consistency_schedule")
            if not weight:
                raise ValueError(
                    f"consistency_schedule={text!r}: the weight that it schedules is 0; set it to "
                    "None, or consistency_weight above 0"
                )

    @functools.cached_property
    def labelled_data(self) -> data.Dataset:
        """The labelled examples.

        Raises:
          ValueError: a class has too few examples.
        """
        setup = self.require_setup()
        chosen = data.draw_per_class(
            setup.train_data.labels,
            self.labelled_per_class,
            num_classes=setup.test_data.num_classes,
            seed=setup.config.seed,
            field="task.labelled_per_class",
        )
        return data.select(setup.train_data, chosen)

    def check(self) -> None:
        """Raises ValueError if there are too few labels, or if both views would be the same."""
        super().check()
        setup = self.require_setup()
        batch_size, count = setup.config.batch_size, len(self.labelled_data)
        if batch_size > count:
            raise ValueError(
                f"batch_size={batch_size} is larger than the {count} labelled images that "
                f"task.labelled_per_class={self.labelled_per_class} gives; lower batch_size, or "
                "raise task.labelled_per_class"
            )
        if self.consistency_weight and not self.views_differ:
            raise ValueError(
                "noise: both views of an image would be the same, since nothing in training is "
                "random or mixes examples; set, for example, noise.name='gaussian', noise.std=0.1, "
                "noise.point='image', noise.train=True, or task.consistency_weight=0"
            )

        if (text := self.consistency_schedule) is not None:
            field = "task.consistency_schedule"
            first = setup.cut_steps(StrengthSchedule.parse(text, field=field).begin, field)
            if first >= setup.total_steps:
                raise ValueError(
                    f"{field}={text!r} begins at step {first}, and the run has "
                    f"{setup.total_steps}: make it begin earlier, or raise duration"
                )

    @property
    def views_differ(self) -> bool:
        """Whether two passes of one image can differ."""
        model = self.model
        acting = [each for each in model.injections if each.train and not each.noise.is_off]
        config = self.require_setup().config
        size = config.batch_size // config.accumulate
        return bool(getattr(model, "dropout", 0) or model.drop_path) or any(
            each.noise.draws or each.draws_layer or _depends_on_order(each.noise, size)
            for each in acting
        )

    def describe_data(self) -> dict[str, Any]:
        """Describes how many examples have labels."""
        return {"labelled_examples": len(self.labelled_data)}

    def open_batches(self, start: int = 0) -> data.BatchIterator | PairedBatches:
        """Opens the batches: {"image", "label"} of labelled images, and "unlabelled_image"."""
        setup = self.require_setup()
        seed = setup.config.seed
        labelled = self.open_stream(self.labelled_data, seed, start)
        if not self.consistency_weight:
            return labelled
        unlabelled = self.open_stream(setup.train_data, target_seed(seed), start)
        return LabelledAndUnlabelled(labelled, unlabelled)

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """Returns the sum of both terms; top1 is that of the labelled images."""
        loss, (state, metrics) = super().loss(params, state, batch, context)
        if not self.consistency_weight:
            return loss, (state, metrics | {"consistency": jnp.zeros((), jnp.float32)})
        images = self.normalise(batch["unlabelled_image"])
        first, state = self._view(params, state, images, context, _VIEWS[0])
        order = self._order(len(images), context)
        second, state = self._view(params, state, images[order], context, _VIEWS[1])
        second = second[jnp.argsort(order)]
        if self.stop_gradient:
            first = jax.lax.stop_gradient(first)
        apart = divergence(first, second, kind=self.divergence)
        weight = self.consistency_weight * self._factor(context)
        return loss + weight * apart, (state, metrics | {"consistency": apart})

    def _order(self, size: int, context: StepContext) -> jax.Array:
        """Returns the order of the second view's batch; it is random if noise mixes examples."""
        if not any(each.train and each.noise.mixes_batch for each in self.model.injections):
            return jnp.arange(size)
        return jax.random.permutation(context.keys["view_order"], size)

    def _view(
        self, params: Any, state: State, images: jax.Array, context: StepContext, name: str
    ) -> tuple[jax.Array, State]:
        """Returns the logits of one view, with its own random streams."""
        context = dataclasses.replace(context, keys=RandomStreams(context.keys[name]))
        return self.apply(params, state, images, context)

    def _factor(self, context: StepContext) -> Any:
        """Returns the factor of the weight in this step."""
        if self.consistency_schedule is None:
            return 1.0
        setup, field = self.require_setup(), "task.consistency_schedule"
        schedule = StrengthSchedule.parse(self.consistency_schedule, field=field)
        return schedule.by_step(lambda duration: setup.cut_steps(duration, field))(context.step)


def _depends_on_order(each: noise.Noise, size: int) -> bool:
    """Returns whether the result for an example depends on the order, for noise without randomness.

    With the optimal Q over a whole batch it does not: the mean is the same in any order.
    """
    if each.mixes != "batch":
        return False
    generator = np.random.default_rng(0)
    x = generator.normal(size=(size, 2, 2)).astype(np.float32)
    order = generator.permutation(size)
    again = np.empty_like(x)
    again[order] = each(None, jnp.asarray(x[order]))
    return not np.allclose(again, each(None, jnp.asarray(x)), atol=1e-5)


def divergence(first: jax.Array, second: jax.Array, *, kind: str) -> jax.Array:
    """Returns the divergence between two predictions, averaged over the batch.

    Args:
      first, second: logits (batch, classes).
      kind: "kl", KL(first || second) in nats; "mse", the squared difference of probabilities,
        summed over classes.
    """
    log_p, log_q = jax.nn.log_softmax(first), jax.nn.log_softmax(second)
    if kind == "mse":
        return jnp.square(jnp.exp(log_p) - jnp.exp(log_q)).sum(-1).mean()
    return (jnp.exp(log_p) * (log_p - log_q)).sum(-1).mean()
