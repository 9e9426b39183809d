"""Representations before the noise, computed once per example for all protocols."""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from pnoise_jax import data, noise


@dataclasses.dataclass(frozen=True, eq=False)
class Representations:
    """The input of one layer of a model, for every example of a data set.

    Attributes:
      layer: the number of the layer, counted from 1.
      values: (n, ...), in the data set's order, in memory or mapped from a file.
    """

    layer: int
    values: np.ndarray

    def require_before(self, model: nn.Module) -> None:
        """Raises ValueError if noise of ``model`` enters before this layer."""
        if noise.as_injections(model.injection):
            first = first_noisy_layer(model.injection, model.num_layers)
            if first < self.layer:
                raise ValueError(
                    f"the noise enters layer {first}, but the representations are the input of "
                    f"layer {self.layer}; make them for layer {first} or before"
                )

    def batches(self, dataset: data.Dataset, indices: np.ndarray) -> Iterator[data.Batch]:
        """Yields this host's part of the batches in the rows of ``indices``; -1 is padding."""
        hosts, host = jax.process_count(), jax.process_index()
        for rows in indices:
            index = rows.reshape(hosts, -1)[host]
            mask = index >= 0
            batch = {"representation": self.values[index], **dataset.targets(index)}
            yield batch | {"mask": mask, "index": index}


def first_noisy_layer(
    injection: noise.Injection | tuple[noise.Injection, ...], num_layers: int
) -> int:
    """Returns the first layer where noise can enter in an evaluation; 0 for the image."""
    switched = noise.switch_for_evaluation(injection)
    return min(each.first_layer(num_layers) for each in switched if each.inference)


def allocate(
    rows: int, like: Mapping[int, jax.Array], scratch: Path | None
) -> dict[int, np.ndarray]:
    """Allocates arrays for representations: in memory, or in files if larger than a quarter of it.

    Args:
      rows: number of examples.
      like: by layer, arrays (b, ...) with the shapes and dtypes to store.
      scratch: directory for the files, which have no names and vanish with the process; None for
        the system's temporary directory.

    Raises:
      OSError: there is not enough disk space for the files.
    """
    shapes = {layer: (rows, *x.shape[1:]) for layer, x in like.items()}
    size = sum(rows * x[0].size * x.dtype.itemsize for x in like.values())
    if size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 4:
        return {layer: np.empty(shapes[layer], x.dtype) for layer, x in like.items()}
    directory = Path(scratch or tempfile.gettempdir())
    free = shutil.disk_usage(directory).free
    if free < size:
        raise OSError(
            f"the representations before the noisy layers need {size / 1e9:.1f} GB, but "
            f"{directory} has {free / 1e9:.1f} GB left: make room, choose a work directory on a "
            "larger disk, or evaluate fewer examples (data.test_split)"
        )
    mapped = {}
    for layer, x in like.items():
        with tempfile.TemporaryFile(dir=directory) as file:
            mapped[layer] = np.memmap(file, x.dtype, "w+", shape=shapes[layer])
    return mapped
