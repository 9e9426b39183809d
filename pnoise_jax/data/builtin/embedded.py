"""The data sets that ship with the project; prepared atomically on first use."""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from pnoise_jax.data.builtin.digits import Digits
from pnoise_jax.data.builtin.font_digits import FontDigits
from pnoise_jax.data.builtin.glyphs import Glyphs
from pnoise_jax.data.builtin.mnist_5k import Mnist5k
from pnoise_jax.data.stored import manifest
from pnoise_jax.data.stored.data_dir import make_staging
from pnoise_jax.data.stored.directory import PreparedDirectory

# To add a data set, add its builder under "name" or, as in TFDS, "name/config".
BUILDERS: Mapping[str, type[tfds.core.GeneratorBasedBuilder]] = {
    "digits": Digits,
    "font_digits": FontDigits,
    "glyphs/200": Glyphs,
    "glyphs/1000": Glyphs,
    "mnist_5k": Mnist5k,
}


def embedded_version(name: str) -> str | None:
    """The version that is prepared and read under this name; None if it is not embedded."""
    return str(BUILDERS[name].VERSION) if name in BUILDERS else None


def prepared(name: str, data_dir: Path, *, field: str = "data.data_dir") -> Path:
    """The directory of an embedded data set, which is prepared if it does not exist.

    Preparation is atomic: it happens in a separate directory, `incomplete.<name>.*`, that is
    renamed when it is complete. Several processes may start at the same time, and a process may be
    killed at any time. At worst, it leaves such a directory behind, which is never read and can be
    deleted.

    Args:
      name: one of `BUILDERS`.
      data_dir: the directory of the data sets.
      field: the field that the user sets it with, for error messages.

    Raises:
      OSError: `data_dir` is not a directory, cannot be created, or is not writable.
    """
    target = data_dir / name / str(BUILDERS[name].VERSION)
    if not target.exists():
        _prepare(name, data_dir, target, field)
    return target


def _builder(name: str, data_dir: Path) -> tfds.core.GeneratorBasedBuilder:
    config = name.partition("/")[2] or None
    return BUILDERS[name](config=config, data_dir=data_dir, file_format="array_record")


def _prepare(name: str, data_dir: Path, target: Path, field: str) -> None:
    # TFDS also prepares in a temporary directory, but names it with the global `random` (two
    # processes with the same seed collide) and fails if another process finishes first.
    staging = make_staging(data_dir, name, field=field)
    try:
        builder = _builder(name, staging)
        logging.info("Preparing data set %r in %s", name, target)
        # stdout is for a program's results; TFDS would print the name of the staging directory.
        with contextlib.redirect_stdout(io.StringIO()), _without_progress_bars():
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        directory = PreparedDirectory(Path(builder.data_dir), name)
        for split in builder.info.splits:
            np.save(directory.path / f"labels-{split}.npy", directory.recorded_labels(split))
        manifest.write(directory.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(builder.data_dir, target)
        except OSError:
            if not target.exists():  # otherwise, another process has prepared the same data
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(True)
