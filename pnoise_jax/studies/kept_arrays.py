"""Keeps a study's arrays on disk and reads them back only if the measurement is the same."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax import training
from pnoise_jax.writing import replace_file


def read_arrays(file: Path, identity: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays that `write_arrays` wrote with this identity, or None."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            arrays = dict(stored)
    except Exception:  # missing, or damaged: zlib, zipfile and NumPy have many errors
        return None
    stored = str(arrays.pop("identity", ""))
    return arrays if stored == _named(identity, arrays) else None


def write_arrays(file: Path, identity: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, with a text that identifies the measurement."""
    buffer = io.BytesIO()
    content: dict[str, Any] = {"identity": np.array(_named(identity, arrays)), **arrays}
    np.savez_compressed(buffer, **content)
    replace_file(file, buffer.getvalue())


def _named(identity: str, arrays: Iterable[str]) -> str:
    """Returns the identity with the names of the arrays, which can be damaged, too."""
    return f"{identity} of {', '.join(sorted(arrays))}"


def describe_images(experiment: training.Experiment) -> dict[str, Any]:
    """Describes the test images of a measurement, for its identity: which, and how preprocessed."""
    config, test_data = experiment.config, experiment.test_data
    return {
        "data": [test_data.name, test_data.split, test_data.version, len(test_data)],
        "content": test_data.content,
        "transform": config.data.test_transform,
        "classes": config.evaluation.classes,
    }
