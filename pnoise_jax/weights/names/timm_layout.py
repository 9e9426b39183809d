"""Translates our arrays to timm's names and PyTorch's layouts."""

from collections.abc import Mapping

import numpy as np

from pnoise_jax.weights.formats.array_file import Shape
from pnoise_jax.weights.names import torch
from pnoise_jax.weights.names.naming import NAMINGS


def timm_state(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model's arrays as timm's state dict, with timm's names and PyTorch's layouts.

    Args:
      arrays: all arrays of a model, by our paths, such as "params/head/bias".

    Raises:
      ValueError: they belong to none of timm's families.
    """
    layout = timm_layout({path: x.shape for path, x in arrays.items()})
    tensors = {
        name: np.ascontiguousarray(np.transpose(arrays[path], axes))
        for path, (name, axes) in layout.items()
    }
    # PyTorch's batch norms require a counter of batches, though these do not use it.
    norms = [name for name in tensors if name.endswith("running_mean")]
    counters = (name.replace("running_mean", "num_batches_tracked") for name in norms)
    return tensors | {name: np.array(0, np.int64) for name in counters}


def timm_layout(shapes: Mapping[str, Shape]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """timm's name of each array by our path, and the order of our axes in timm's array.

    Reading them back with the family's naming yields exactly these paths and shapes.

    Raises:
      ValueError: they belong to none of timm's families.
    """
    best, most = {}, 0
    for naming in NAMINGS:
        if naming.renaming is None:
            continue
        layout = {
            path: torch.torch_name(path, len(shape), naming.renaming)
            for path, shape in shapes.items()
        }
        theirs = {
            name: tuple(shapes[path][axis] for axis in axes)
            for path, (name, axes) in layout.items()
        }
        recognised = naming.count_recognised(theirs)
        if recognised > most:
            read_back = {path: entry.shape for path, entry in naming.entries(theirs).items()}
            if read_back == dict(shapes):
                best, most = layout, recognised
    if best:
        return best
    raise ValueError(
        f"these {len(shapes)} arrays belong to none of the families that have names in timm: "
        f"{', '.join(naming.title for naming in NAMINGS if naming.renaming)}"
    )
