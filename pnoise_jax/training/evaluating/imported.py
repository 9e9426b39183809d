"""Reads imported weights to the devices of every host, and checks the images they expect."""

import zlib
from pathlib import Path

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from pnoise_jax import data, parallel, weights
from pnoise_jax.parallel import on_all_hosts
from pnoise_jax.training.experiment import Experiment


def match_on_all_hosts(
    experiment: Experiment, *, head: str | None = None
) -> weights.Weights | None:
    """`Experiment.match_weights`; raises on every host if it raises on one."""
    return on_all_hosts(lambda: experiment.match_weights(head=head))


def read_to_devices(
    found: weights.Weights, mesh: Mesh, matmul_split: parallel.MatmulSplit | None = None
) -> dict[str, jax.Array]:
    """The arrays of weights by path, read one by one, so that the host never has all in memory.

    Raises:
      ValueError: the weights cannot be read, or hosts have read different weights.
    """
    alone = jax.process_count() == 1

    def read() -> tuple[dict[str, jax.Array], int]:
        arrays: dict[str, jax.Array] = {}
        checksum = 0
        for path, array in found.read():
            checksum = checksum if alone else zlib.crc32(array.data, checksum)
            (place,) = parallel.place({path: array}, mesh, matmul_split).values()
            arrays[path] = jax.make_array_from_callback(array.shape, place, array.__getitem__)
        return arrays, checksum

    arrays, checksum = on_all_hosts(read)
    if not alone:
        checksums = multihost_utils.process_allgather(np.uint32(checksum))
        if len(set(checksums.tolist())) > 1:
            raise ValueError(
                f"weights={found.name!r}: not all hosts read the same numbers there "
                f"(checksums by host: {checksums.tolist()}): give every host the same file"
            )
    return arrays


def warn_of_preprocessing(experiment: Experiment, found: weights.Weights) -> list[str]:
    """Warnings if the config prepares images differently from what the weights expect."""
    expected, section = found.preprocessing, experiment.config.data
    if expected is None:
        return []
    channels = experiment.test_data.require_image_shape()[-1]
    warnings = _warn_of_mean_image(expected, section)
    theirs = {"mean": None if warnings else expected.mean, "std": expected.std}
    other = {
        name: values
        for name, values in theirs.items()
        if values is not None and not _alike(values, section[name], channels)
    }
    for name, values in other.items():
        warnings.append(
            f"the weights expect data.{name}={values}, but it is {section[name]}: set it"
        )
    wanted = expected.test_transform
    if wanted is not None and _transform(wanted) != _transform(section.test_transform):
        warnings.append(
            f"the weights expect data.test_transform={wanted!r}, but it is "
            f"{section.test_transform!r}: set it, or expect other accuracies than published"
        )
    return warnings


def _warn_of_mean_image(
    expected: weights.Preprocessing, section: ml_collections.ConfigDict
) -> list[str]:
    """A warning if only one side subtracts a mean image, or both subtract different ones."""
    theirs, ours = expected.mean_image, section.mean_image
    if theirs is None and (ours is None or expected.mean is None):
        return []
    if theirs is not None and ours is not None and Path(theirs).name == Path(ours).name:
        return []
    wanted = f"data.mean_image={theirs!r}"
    if theirs is None:
        wanted = f"data.mean={expected.mean} and no mean image"
    return [f"the weights expect {wanted}, but data.mean_image is {ours!r}: set it"]


def _alike(theirs: tuple[float, ...], ours: tuple[float, ...], channels: int) -> bool:
    """Whether the values agree to within half a level of an 8-bit pixel."""
    if {len(theirs), len(ours)} - {1, channels}:
        return False
    return bool(np.allclose(theirs, ours, rtol=0, atol=0.5 / 255))


def _transform(text: str) -> data.Transform:
    """The transform that a string describes, to compare two strings."""
    text = "resize_square" if text == "none" else text  # the same for images of the right size
    return data.create_transform(
        text, size=(1, 1), mean=(0.5,), std=(0.5,), train=False, field="data.test_transform"
    )
