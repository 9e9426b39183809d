"""What is measured: a model, a batch of random images, training steps."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from pnoise_jax import models, parallel, training
from pnoise_jax.models import Classifier
from pnoise_jax.training import optimizer as optimizers

from . import report

LEARNING_RATE = 1e-4


def create_model(spec: Any, **options: Any) -> Classifier:
    """The model of a spec, which has a model, an image size and perhaps a depth.

    Raises:
      ValueError: there is no such model, or it refuses an option; the flags are named.
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


def draw_batch(spec: Any, *, classes: int = 1000, seed: int = 1) -> dict[str, np.ndarray]:
    """Random images, uint8, and labels, of a spec's batch and image size."""
    rng = np.random.default_rng(seed)
    shape = (spec.batch_size, spec.image_size, spec.image_size, 3)
    return {
        "image": rng.integers(0, 256, shape, np.uint8),
        "label": rng.integers(0, classes, shape[:1], np.int32),
    }


def create_optimizer() -> optax.GradientTransformation:
    """The default config's, at a constant rate."""
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
      task: what is trained.
      image_size: side of its images, pixels.
      mesh: the devices.
      imported: variables by path, in place of random ones.
    """

    def create(key: jax.Array) -> training.TrainState:
        return training.init_state(
            task, create_optimizer(), key, _images(image_size), with_ema=False, imported=imported
        )

    return jax.jit(create, out_shardings=parallel.replicated(mesh))(jax.random.key(0))


def make_advance(
    task: training.Task, state: training.TrainState, batch: Mapping[str, jax.Array], mesh: Mesh
) -> Callable[[], tuple[training.TrainState, training.Metrics]]:
    """A call that makes the next training step, on a copy of the state and always one batch."""
    step = training.jit_train_step(training.make_train_step(task, create_optimizer()), mesh)
    key = parallel.random_key(0, mesh)
    state = jax.tree.map(jnp.copy, state)

    def advance() -> tuple[training.TrainState, training.Metrics]:
        nonlocal state
        state, metrics = step(state, batch, key)
        return state, metrics

    return advance


def _images(image_size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
