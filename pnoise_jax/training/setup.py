"""The parts that a config describes for any task: data, model, schedule and optimiser."""

import dataclasses
import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from pnoise_jax import data, evaluation, noise, parallel, weights
from pnoise_jax.data import imagenet_sets
from pnoise_jax.training import inputs
from pnoise_jax.training.configuration.durations import steps_of
from pnoise_jax.training.configuration.strength_schedule import StrengthSchedule
from pnoise_jax.training.step.noise_schedules import parse_noise_schedules
from pnoise_jax.training.step.optimizer import create_optimizer, learning_rate_schedule
from pnoise_jax.training.step.optimizer import frozen as find_frozen


@dataclasses.dataclass(frozen=True)
class Setup:
    """A config, and the parts of a run that it describes.

    The training split is loaded only when it is used, so evaluation needs only the test split.

    Attributes:
      config: the validated config.
      load: loads a split of the config's data set.
      test_data: the test split, with images as the model's input.
      model: the model with the config's injections, and with any parts that the task adds.
      plain_model: the model without the task's parts; pretrained weights are for this one.
      mean, std: per channel, for images in [0, 1]; or a mean image and a std of 1.
    """

    config: ml_collections.ConfigDict
    load: Callable[..., data.Dataset]
    test_data: data.Dataset
    model: nn.Module
    plain_model: nn.Module
    mean: data.PixelMean
    std: tuple[float, ...]

    @property
    def injections(self) -> tuple[noise.Injection, ...]:
        """The injections of the model; empty if there are none."""
        return noise.as_injections(self.model.injection)

    @property
    def matmul_split(self) -> parallel.MatmulSplit | None:
        """How devices can share the model's matrix products; None if they cannot."""
        return getattr(self.model, "matmul_split", None)

    @property
    def evaluated_injections(self) -> tuple[noise.Injection, ...]:
        """The injections that act in an evaluation with noise."""
        switched = noise.switch_for_evaluation(self.model.injection)
        return tuple(each for each in switched if each.inference)

    @functools.cached_property
    def evaluated_data(self) -> data.Dataset:
        """The test split on which predictions are scored, with only the classes that count.

        These are the model's classes or, with ``evaluation.classes="of_data_set"``, those that
        occur in the whole split, as renumbered by `Dataset.restricted`.
        """
        restricts = self.config.evaluation.classes == "of_data_set"
        return self.test_data.restricted() if restricts else self.test_data

    def describe_scoring(self) -> list[str]:
        """Sentences about which logits count and what is correct, if that is not obvious."""
        dataset, sentences = self.test_data, list(self.test_data.notes)
        if dataset.label_sets is not None:
            sentences.append(
                f"{dataset.name}: a prediction is correct if it is any label of its image; the "
                "class-sorted order uses the original labels"
            )
        return [*sentences, *self._describe_classes(), *self._describe_corrupted()]

    def _describe_classes(self) -> list[str]:
        dataset, number = self.test_data, self.test_data.num_classes
        present = number if dataset.occurring is None else len(dataset.occurring)
        if self.config.evaluation.classes == "of_data_set":
            return [
                f"evaluation.classes='of_data_set': {present} of the model's {number} logits "
                f"count, those of the classes of {dataset.name}"
            ]
        if present == number:
            return []
        published = ""
        if dataset.name in ("imagenet_a", "imagenet_r"):
            published = "; published numbers mostly count these alone ('of_data_set')"
        return [
            f"evaluation.classes='all': all {number} logits count, and {dataset.name} has "
            f"{present} of the classes{published}"
        ]

    def _describe_corrupted(self) -> list[str]:
        """Sentences for ImageNet-C on differences from the published images."""
        dataset, side = self.test_data, imagenet_sets.CORRUPTED_SIDE
        if dataset.name not in imagenet_sets.CORRUPTED_NAMES:
            return []
        sentences = []
        if dataset.version != imagenet_sets.OFFICIAL_CORRUPTED_VERSION:
            sentences.append(
                f"{dataset.name} is version {dataset.version}, which TFDS generated again: its "
                "numbers are close to those of the published files, but not the same"
            )
        if self.test_data.require_image_shape()[:2] != (side, side):
            sentences.append(
                f"the published images of ImageNet-C have {side} x {side} pixels, but this model "
                "gets them resized: its numbers are not directly comparable with those of other "
                "models"
            )
        transform = self.config.data.test_transform
        if transform not in ("none", "resize_square"):
            sentences.append(
                f"the images of ImageNet-C are cropped already, but data.test_transform="
                f"{transform!r} crops them again; 'resize_square' shows them as published"
            )
        return sentences

    @functools.cached_property
    def train_data(self) -> data.Dataset:
        """The training split, with images as they are stored."""
        return self.load(split=self.config.data.train_split)

    @functools.cached_property
    def train_transform(self) -> data.Transform:
        """The transform from a stored training image to the model's input; it may be random."""
        return self.transform_of(self.train_data)

    def transform_of(self, dataset: data.Dataset) -> data.Transform:
        """The transform from a stored training image of any data set to the model's input."""
        size = self.test_data.require_image_shape()[:2]
        return inputs.transform(self.config, dataset, size, train=True, mean=self.mean)

    def without_augmentation(self, dataset: data.Dataset) -> data.Dataset:
        """Any data set, with its images transformed like those of the test split."""
        size = self.test_data.require_image_shape()[:2]
        return inputs.transformed(self.config, dataset, size)

    @property
    def total_steps(self) -> int:
        """The number of updates of the whole run."""
        return self.config.steps or self.steps(self.config.duration, "duration")

    def steps(self, duration: str, field: str) -> int:
        """A duration of the config in steps."""
        return steps_of(
            duration,
            field=field,
            examples=len(self.train_data),
            batch_size=self.config.batch_size,
        )

    @functools.cached_property
    def noise_schedules(self) -> tuple[StrengthSchedule | None, ...]:
        """The schedule of each injection's strength in training; None if it is constant."""
        return parse_noise_schedules(self.config.noise, self.injections)

    @property
    def strongest_injections(self) -> tuple[noise.Injection, ...]:
        """The injections, each with its largest strength in training."""
        return tuple(
            each
            if schedule is None
            else each.with_strength(each.noise.strength * max(schedule.first, schedule.last))
            for each, schedule in zip(self.injections, self.noise_schedules, strict=True)
        )

    def factor_by_step(self, schedule: StrengthSchedule, field: str) -> optax.Schedule:
        """The factor of a strength by step; config.steps shortens the schedule in proportion."""
        return schedule.by_step(lambda duration: self.cut_steps(duration, field))

    def require_beginning(self, schedule: StrengthSchedule, field: str) -> None:
        """Raises ValueError if a schedule begins after the end of the run."""
        first = self.cut_steps(schedule.begin, field)
        if first >= self.total_steps:
            raise ValueError(
                f"{field}={str(schedule)!r} begins at step {first}, but the run has only "
                f"{self.total_steps}: make it begin earlier, or raise duration"
            )

    def cut_steps(self, duration: str, field: str) -> int:
        """A duration of the config in steps; config.steps shortens it in proportion to the run."""
        steps = self.steps(duration, field)
        if self.config.steps is None:
            return steps
        return round(steps * self.config.steps / self.steps(self.config.duration, "duration"))

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate by step; config.steps shortens warm-up and epochs in proportion."""
        section = self.config.optimizer
        by_epoch = section.schedule == "cosine_by_epoch"
        return learning_rate_schedule(
            section,
            warmup_steps=self.cut_steps(section.warmup, "optimizer.warmup"),
            total_steps=self.total_steps,
            steps_per_epoch=self._steps_per_epoch() if by_epoch else 1,
        )

    def _steps_per_epoch(self) -> Fraction:
        """The exact length of an epoch in steps; config.steps shortens it like `cut_steps`."""
        steps = Fraction(len(self.train_data), self.config.batch_size)
        if self.config.steps is None:
            return steps
        return steps * self.config.steps / self.steps(self.config.duration, "duration")

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser, with its schedules."""
        field = "optimizer.gradient_noise_schedule"
        text = self.config.optimizer.gradient_noise_schedule
        factor = text and self.factor_by_step(StrengthSchedule.parse(text, field=field), field)
        return self.create_optimizer(self.schedule, factor)

    def create_optimizer(
        self, schedule: optax.Schedule, gradient_noise: optax.Schedule | None = None
    ) -> optax.GradientTransformation:
        """The optimiser with another schedule.

        Args:
          schedule: the learning rate by step.
          gradient_noise: the factor of the gradients' noise by step; None is 1.
        """
        layers = [self.model.layer_name(n) for n in range(1, self.model.num_layers + 1)]
        return create_optimizer(
            self.config.optimizer, schedule, layers=layers, gradient_noise=gradient_noise
        )

    @property
    def frozen(self) -> Callable[[optax.Params], optax.Params] | None:
        """A function that maps parameters to True if they are frozen; None if none are."""
        patterns = self.config.optimizer.freeze
        return functools.partial(find_frozen, patterns=patterns) if patterns else None

    @property
    def variables(self) -> dict[str, Any]:
        """Shapes and dtypes of the model's collections."""
        return _trace(self.model.clone(injection=None), self.test_data.image_shape)

    @property
    def parameters(self) -> Any:
        """Shapes and dtypes of the parameters to train."""
        return self.variables["params"]

    def match_weights(self, *, head: str | None = None) -> weights.Weights | None:
        """The config's weights, not read yet; None if it names none.

        Args:
          head: overrides the config's weights_head.

        Raises:
          ValueError, OSError: the weights cannot be read, or do not fit the model.
        """
        if head is not None and head != self.config.weights_head:
            return self._match_weights(head)
        return self._matched_weights

    @functools.cached_property
    def _matched_weights(self) -> weights.Weights | None:
        """The weights with the config's weights_head, cached for the header and the first state."""
        return self._match_weights(self.config.weights_head)

    def _match_weights(self, head: str) -> weights.Weights | None:
        path = self.config.weights
        if path is None:
            return None
        heads = (getattr(self.model, name, None) for name in ("classifier_head", "image_head"))
        if any(each is not None for each in heads):
            if head == "keep":
                raise ValueError(
                    "weights_head='keep': the task has its own head, which these weights cannot "
                    "contain; set weights_head='fresh'"
                )
            head = "fresh"
        names = self.test_data.class_names
        shapes = _trace(self.plain_model.clone(injection=None), self.test_data.image_shape)
        return weights.match(path, self.plain_model, shapes, head=head, class_names=names)

    @property
    def protocols(self) -> tuple[evaluation.Protocol, ...]:
        """The clean protocol, and the noisy ones in both orders if the config has noise."""
        return evaluation.standard_protocols(
            self.config.evaluation.batch_size, noise=bool(self.injections)
        )


@functools.lru_cache(maxsize=16)  # the cells of a sweep share their models
def _trace(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
