"""The workloads to measure: models, batches of random images, training steps, audits."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import Mesh

from pnoise_jax import data, models, noise, parallel, training
from pnoise_jax.models import Classifier
from pnoise_jax.studies import leak
from pnoise_jax.training import optimizer as optimizers

from . import report

LEARNING_RATE = 1e-4
AUDITED_CLASSES = 5
PIXELS: dict[str, Any] = {"mean": (0.5,), "std": (0.5,)}

# The smallest model of each family.
FAMILIES = ("vit_ti_16", "vit_little_16_reg4", "deit_ti_16_distilled", "beit_b_16", "swin_t")
FAMILIES += ("swinv2_t", "convit_ti", "davit_t", "maxvit_t", "resnet18")

_PATCH, _HEAD_DIM, _CLASSES = 8, 32, 10  # for `SmallStep`


def create_model(spec: Any, **options: Any) -> Classifier:
    """Creates the model of a spec, which has a model, an image size and perhaps a depth.

    Raises:
      ValueError: there is no such model, or it refuses an option; the message names the flags.
    """
    report.require_known("model", spec.model, models.list_models())
    depth = getattr(spec, "depth", None)
    named = {} if depth is None else {"depth": depth}
    if "image_size" in models.default_options(spec.model):
        named["image_size"] = spec.image_size
    try:
        model = cast("Classifier", models.create_model(spec.model, **named, **options))
        abstract_variables(model, spec.image_size)
    except ValueError as error:
        chosen = f"--model={spec.model} --image_size={spec.image_size}"
        chosen += "" if depth is None else f" --depth={depth}"
        raise ValueError(f"{chosen}: {error}") from None
    return model


def abstract_variables(model: Classifier, image_size: int) -> Any:
    """The shapes of a model's variables."""
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), _images(image_size))


def draw_variables(model: Classifier, image_size: int) -> dict:
    """Random values for all variables, so that any difference shows in the logits."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("var", "scale", "gamma_1", "gamma_2"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if name == "kernel" else 2500
        return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, dict(abstract_variables(model, image_size)))


def flat(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables by path, such as "params/head/kernel"."""
    return dict(traverse_util.flatten_dict(variables, sep="/"))


def audited_labels(examples: int) -> np.ndarray:
    """The labels of `audited_dataset`, (examples,) int32."""
    return (np.arange(examples) % AUDITED_CLASSES).astype(np.int32)


def audited_dataset(examples: int, image_size: int) -> data.Dataset:
    """Random images, with the same number in each class, or one more."""
    shape = (image_size, image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, (examples, *shape), np.uint8)
    labels = audited_labels(examples)
    return data.Dataset("random", "all", AUDITED_CLASSES, shape, labels, images)


def run_audit(
    model: Classifier,
    variables: Any,
    dataset: data.Dataset,
    settings: leak.AuditSettings,
    mesh: Mesh,
) -> leak.Measurements:
    """Audits the model's noise: all orders, the checks of batches and the interventions."""
    assert model.injection is not None, "an audit needs noise"
    audited = leak.AuditedNoise.of(model.injection, model.num_layers)
    subject = leak.AuditedModel(
        model, variables, dataset, noises=(audited,), seed=0, mesh=mesh, **PIXELS
    )
    settings = settings.for_labels(dataset.labels, "the benchmark")
    return leak.measure([subject], dataset.labels, (audited,), settings, report=lambda line: None)


def peak_memory(compiled: Any) -> int:
    """Bytes on a device at the peak of a compiled program, according to the compiler."""
    needs = compiled.memory_analysis()
    sizes = needs.argument_size_in_bytes + needs.output_size_in_bytes + needs.temp_size_in_bytes
    return sizes - needs.alias_size_in_bytes


def draw_batch(spec: Any, *, classes: int = 1000, seed: int = 1) -> dict[str, np.ndarray]:
    """Random images, uint8, and labels, for a spec's batch and image size."""
    rng = np.random.default_rng(seed)
    shape = (spec.batch_size, spec.image_size, spec.image_size, 3)
    return {
        "image": rng.integers(0, 256, shape, np.uint8),
        "label": rng.integers(0, classes, shape[:1], np.int32),
    }


def create_optimizer() -> optax.GradientTransformation:
    """The default config's optimizer, at a constant learning rate."""
    return optimizers.create_optimizer(training.default_config().optimizer, lambda _: LEARNING_RATE)


def create_state(
    task: training.Task,
    image_size: int,
    mesh: Mesh,
    *,
    imported: Mapping[str, Any] | None = None,
) -> training.TrainState:
    """The state before the first step, on every device.

    Args:
      task: the task.
      image_size: side of its images, pixels.
      mesh: the devices.
      imported: variables by path, instead of random ones.
    """

    def create(key: jax.Array) -> training.TrainState:
        return training.init_state(
            task, create_optimizer(), key, _images(image_size), with_ema=False, imported=imported
        )

    return jax.jit(create, out_shardings=parallel.replicated(mesh))(jax.random.key(0))


@dataclasses.dataclass
class Advance:
    """A callable that makes the next training steps, always on the same batch.

    Attributes:
      step: the compiled step; its arguments are the state, whose buffers it may reuse, the batch
        and a key.
      state: the state after the last step.
      batch, key: the other arguments of every step.
    """

    step: Any
    state: training.TrainState
    batch: Mapping[str, jax.Array]
    key: jax.Array

    def __call__(self, times: int = 1) -> tuple[training.TrainState, training.Metrics]:
        for _ in range(times):
            self.state, metrics = self.step(self.state, self.batch, self.key)
        return self.state, metrics

    @property
    def memory(self) -> int:
        """The bytes on a device that the step needs in addition to its arguments and results."""
        return self.step.memory_analysis().temp_size_in_bytes

    @property
    def flops(self) -> float:
        """The FLOPs of a step on a device, according to the compiler."""
        return self.step.cost_analysis()["flops"]


def make_advance(
    task: training.Task, state: training.TrainState, batch: Mapping[str, jax.Array], mesh: Mesh
) -> Advance:
    """Compiles the task's training step and returns an `Advance` with a copy of the state."""
    step: Any = training.jit_train_step(training.make_train_step(task, create_optimizer()), mesh)
    key = parallel.random_key(0, mesh)
    compiled = step.lower(state, batch, key).compile()
    return Advance(compiled, jax.tree.map(jnp.copy, state), batch, key)


@dataclasses.dataclass(frozen=True)
class SmallStep:
    """A training step that takes milliseconds: its ViT has patches of 8 pixels and heads of 32.

    Attributes:
      batch_size: examples, over all devices.
      image_size: side of the images in pixels.
      dim: features of a token.
      depth: number of blocks.

    Raises:
      ValueError: patches or heads do not fit; the message names the flag.
    """

    batch_size: int
    image_size: int
    dim: int
    depth: int

    def __post_init__(self) -> None:
        for flag, unit in (("image_size", _PATCH), ("dim", _HEAD_DIM)):
            report.require_multiple(flag, getattr(self, flag), unit)

    @property
    def tokens(self) -> int:
        """The number of tokens of an image: its patches and the class token."""
        return (self.image_size // _PATCH) ** 2 + 1

    def make_advance(self, mesh: Mesh, *, injection: noise.Injection | None = None) -> Advance:
        """Compiles the step, and runs it twice."""
        model = models.create_model(
            "vit_ti_16",
            image_size=self.image_size,
            patch_size=_PATCH,
            dim=self.dim,
            depth=self.depth,
            num_heads=self.dim // _HEAD_DIM,
            num_classes=_CLASSES,
            injection=injection,
        )
        task = training.Classification(model=cast("Classifier", model))
        state = create_state(task, self.image_size, mesh)
        images = draw_batch(self, classes=_CLASSES)
        batch = parallel.to_devices(images, parallel.split_batch(mesh))
        advance = make_advance(task, state, batch, mesh)
        for _ in range(2):
            jax.block_until_ready(advance())
        return advance


def _images(image_size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
