"""Loads weights as the variables of a model, without a config or a training run."""

import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from pnoise_jax.terminal import say
from pnoise_jax.weights.adapt.head import head_paths
from pnoise_jax.weights.infer_model import infer_channels
from pnoise_jax.weights.matching import match_named, open_named

_ANY_SIDE = 64  # the side of images for models that accept any size


def load(
    path: str | os.PathLike,
    model: nn.Module,
    *,
    head: str = "keep",
    key: jax.Array | None = None,
    report: Callable[[str], None] = say,
) -> dict[str, Any]:
    """Loads the variables of a model from a file of weights.

        model = models.create_model("vit_b_16", image_size=384)
        logits = model.apply(weights.load("vit_base.safetensors", model), images)

    See `match` for the files that can be read, and for the arrays that are resized.

    Args:
      path: the path of a file or run, an id of the Hugging Face hub, or a gs:// URL.
      model: a model for images with as many channels as the file's.
      head: "keep" the file's head; "fresh": a newly initialised one; or "auto": a fresh one if the
        classes differ.
      key: initialises a fresh head, by default `jax.random.key(0)`.
      report: is called with sentences: which arrays were taken and what was done to make them fit;
        what is assumed about the model because nothing shows it; and which images the weights
        expect.

    Returns:
      "params" and "batch_stats", float32; the latter is empty if the model has none.

    Raises:
      FileNotFoundError, OSError, ValueError: see `match`; or the file cannot be read.
    """
    named = open_named(path)
    channels = infer_channels(named.shapes) or 3
    height, width = getattr(model, "image_shape", None) or (_ANY_SIDE, _ANY_SIDE)
    images = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    weights = match_named(named, model, shapes, head=head)
    report(weights.describe())
    if weights.assumed:
        report(weights.describe_assumed())
    report(weights.describe_preprocessing())
    flat = {path: jnp.asarray(array) for path, array in weights.read()}
    if not head_paths(flat):
        flat |= _fresh_head(model, images, jax.random.key(0) if key is None else key)
    return {"batch_stats": {}} | traverse_util.unflatten_dict(flat, sep="/")


def _fresh_head(model: nn.Module, images: jax.ShapeDtypeStruct, key: jax.Array) -> dict:
    @jax.jit  # so that only the head is computed
    def draw(key):
        variables = model.init(key, jnp.zeros(images.shape, images.dtype))
        flat = traverse_util.flatten_dict(variables, sep="/")
        return {path: flat[path] for path in head_paths(flat)}

    return draw(key)
