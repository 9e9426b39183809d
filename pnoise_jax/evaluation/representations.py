"""What the layers before the noise make of every example: computed once, used by all protocols."""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data


@dataclasses.dataclass(frozen=True, eq=False)
class Representations:
    """The input of one layer of a model, for every example of a data set.

    Attributes:
      layer: its number, from 1.
      values: (n, ...), in the data set's order, in memory or mapped from a file.
    """

    layer: int
    values: np.ndarray

    def require_before(self, model: nn.Module) -> None:
        """Raises ValueError if the noise of ``model`` enters before this layer."""
        if model.injection is not None:
            first = first_noisy_layer(model.injection, model.num_layers)
            if first < self.layer:
                raise ValueError(
                    f"the noise enters layer {first}, and the representations are the input of "
                    f"layer {self.layer}; make them for layer {first} or before"
                )

    def batches(self, labels: np.ndarray, indices: np.ndarray) -> Iterator[data.Batch]:
        """This host's part of the batches that hold the rows of ``indices``; -1 is padding."""
        hosts, host = jax.process_count(), jax.process_index()
        for rows in indices:
            index = rows.reshape(hosts, -1)[host]
            mask = index >= 0
            batch = {"representation": self.values[index], "label": labels[index]}
            yield batch | {"mask": mask, "index": index}


def first_noisy_layer(injection, num_layers: int) -> int:
    """The first layer where noise can enter; 0 for the image."""
    return 0 if injection.point == "image" else min(injection.layers(num_layers))


def record_inputs(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array, layers: tuple[int, ...]
) -> tuple[jax.Array, dict[int, jax.Array]]:
    """The logits (batch, classes) of normalised images, and the input of each of ``layers``."""
    wanted = {model.layer_name(layer): layer for layer in layers}

    def record(module: nn.Module, x: jax.Array) -> jax.Array:
        module.sow("inputs", "x", x)  # a collection, as remat lifts those out
        return x

    with nn.intercept_methods(_at(wanted, record)):
        logits, found = model.apply(variables, images, train=False, mutable=["inputs"])
    return logits, {layer: found["inputs"][name]["x"][0] for name, layer in wanted.items()}


def resume(
    model: nn.Module,
    variables: Mapping[str, Any],
    x: jax.Array,
    layer: int,
    image_shape: tuple[int, ...],
    **call: Any,
) -> jax.Array:
    """The logits (batch, classes) of a model that goes on from the input x of ``layer``; jit it.

    The model runs on empty images and x takes the place of what reaches the layer. So nothing reads
    what comes before, and the compiler leaves it out.

    Args:
      model, variables: the model must read ``layer``'s input alone, as `layer_name` promises.
      x: (batch, ...).
      layer: from 1.
      image_shape: (height, width, channels).
      **call: further arguments of the model's ``apply``.
    """

    def replace(_: nn.Module, absent: jax.Array) -> jax.Array:
        return x.astype(absent.dtype)

    images = jnp.zeros((x.shape[0], *image_shape), jnp.float32)
    with nn.intercept_methods(_at((model.layer_name(layer),), replace)):
        return model.apply(variables, images, **call)


def _at(names: Collection[str], function: Callable[[nn.Module, jax.Array], jax.Array]) -> Callable:
    """An interceptor: ``function(module, x)`` replaces the input x of the submodules so named."""

    def intercept(next_call, args, kwargs, context):
        if context.method_name != "__call__" or "/".join(context.module.path) not in names:
            return next_call(*args, **kwargs)
        x, *others = args
        return next_call(function(context.module, x), *others, **kwargs)

    return intercept


def allocate(
    rows: int, like: Mapping[int, jax.Array], scratch: Path | None
) -> dict[int, np.ndarray]:
    """Room for representations: in memory, or in files where they would fill a quarter of it.

    Args:
      rows: the examples.
      like: by layer, arrays (b, ...) such as will be stored.
      scratch: directory for the files, which have no names there and end with the process; None:
        the system's.

    Raises:
      OSError: there is no room for the files.
    """
    shapes = {layer: (rows, *x.shape[1:]) for layer, x in like.items()}
    size = sum(rows * x[0].size * x.dtype.itemsize for x in like.values())
    if size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 4:
        return {layer: np.empty(shapes[layer], x.dtype) for layer, x in like.items()}
    directory = Path(scratch or tempfile.gettempdir())
    free = shutil.disk_usage(directory).free
    if free < size:
        raise OSError(
            f"the representations before the noisy layers need {size / 1e9:.1f} GB, and "
            f"{directory} has {free / 1e9:.1f} GB left: make room, choose a work directory on a "
            "larger disk, or evaluate fewer examples (data.test_split)"
        )
    mapped = {}
    for layer, x in like.items():
        with tempfile.TemporaryFile(dir=directory) as file:
            mapped[layer] = np.memmap(file, x.dtype, "w+", shape=shapes[layer])
    return mapped
