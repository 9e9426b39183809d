"""Data sets by name: prepared on first use, then read by random access, without TensorFlow."""

import contextlib
import dataclasses
import difflib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from pnoise_jax.data.digits import Digits
from pnoise_jax.data.glyphs import Glyphs

# A new data set is one more line here: its builder, under "name" or "name/config" as TFDS has it.
_BUILDERS: Mapping[str, type[tfds.core.GeneratorBasedBuilder]] = {
    "digits": Digits,
    "glyphs/200": Glyphs,
    "glyphs/1000": Glyphs,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, by random access: `dataset[i]`, `len(dataset)`.

    Attributes:
      name: the data set, as given to `load`.
      split: the split, a TFDS expression such as `train` or `train[:300]`.
      num_classes: labels are 0..num_classes-1.
      image_shape: (height, width, channels).
      labels: (n,) int32, of all examples: no image is read for it.
      images: n uint8 arrays of shape `image_shape`; an array, or anything that can be indexed.
    """

    name: str
    split: str
    num_classes: int
    image_shape: tuple[int, int, int]
    labels: np.ndarray = dataclasses.field(repr=False)
    images: Sequence[np.ndarray] | np.ndarray = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Example i: {"image": uint8 (height, width, channels), "label": int}."""
        return {"image": self.images[i], "label": int(self.labels[i])}


def list_datasets() -> list[str]:
    """The names that `load` knows."""
    return sorted(_BUILDERS)


def load(
    name: str, *, split: str, data_dir: str | os.PathLike | None = None, cache: bool = False
) -> Dataset:
    """Loads one split of a data set; prepares the data set below `data_dir` if it is not there.

    Preparation is atomic: it happens in a directory of its own, `incomplete.<name>.*`, that is
    renamed when it is whole. Processes may start together, and one may be killed at any moment;
    at worst it leaves such a directory, which nothing reads and anybody may delete.

    Args:
      name: one of `list_datasets()`.
      split: a TFDS split: `train`, `test`, `train[:300]`, `train[:10%]`, `train+test`.
      data_dir: where data sets are kept; the directory itself is made, its parents are not.
        None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      cache: decode the whole split into memory now (read-only), instead of at every access.

    Raises:
      ValueError: an unknown name, or a split that the data set does not have.
      FileNotFoundError: the directory that should hold `data_dir` does not exist.
      OSError: `data_dir` is no directory, or cannot be written; or what stands there as the
        prepared data set is not one.
    """
    if name not in _BUILDERS:
        raise ValueError(f"data.name={name!r} is unknown{_near(name, list_datasets())}.")
    builder = _prepared_builder(name, _resolve(data_dir))
    parts = _parse_split(split, builder.info.splits)
    labels = [_labels(builder, whole)[part] for whole, part in parts]
    images = _Images(builder, split)
    return Dataset(
        name=name,
        split=split,
        num_classes=builder.info.features["label"].num_classes,
        image_shape=builder.info.features["image"].shape,
        labels=_read_only(np.concatenate(labels)),
        images=_read_only(np.stack(list(images))) if cache else images,
    )


class _Images(Sequence):
    """The images of a split, decoded at every access."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        self._source = _undecoded(builder, split)
        self._shape = builder.info.features["image"].shape

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> np.ndarray:
        record = self._source[range(len(self))[i]]  # IndexError beyond the end, as a Sequence must
        # PIL always, where TFDS takes OpenCV if it is installed: the same bytes on every machine.
        with Image.open(io.BytesIO(record["image"])) as image:
            return np.asarray(image, np.uint8).reshape(self._shape)


def _undecoded(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[dict[str, Any]]:
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def _read_only(array: np.ndarray) -> np.ndarray:
    # Examples are views: an augmentation that writes in place must not change the data set.
    array.flags.writeable = False
    return array


# Splits and labels


def _parse_split(split: str, splits: Mapping[str, Any]) -> list[tuple[str, slice]]:
    """What the expression `split` joins, in order: parts of whole splits."""
    try:
        instruction = tfds.core.ReadInstruction.from_spec(split)
        parts = [
            (part.splitname, slice(part.from_, part.to)) for part in instruction.to_absolute(splits)
        ]
    except (ValueError, AssertionError, NotImplementedError) as error:
        problem = str(error).splitlines()[0]
    else:
        if all(range(splits[whole].num_examples)[part] for whole, part in parts):
            return parts
        problem = "A part of it holds no example."
    sizes = ", ".join(f"{name} ({info.num_examples} examples)" for name, info in splits.items())
    raise ValueError(
        f"split={split!r} (data.train_split, data.test_split) cannot be read: {problem} "
        f"There are: {sizes}, and parts of them such as 'train[:300]'."
    )


def _labels(builder: tfds.core.DatasetBuilder, split: str) -> np.ndarray:
    """All labels of a whole split, (n,) int32: from the file beside the records, if there is."""
    path = _labels_path(builder, split)
    if path.exists():
        labels = np.load(path, allow_pickle=False)
        expected = builder.info.splits[split].num_examples
        if labels.shape != (expected,):
            raise OSError(
                f"{path} has labels of shape {labels.shape}, and the split {expected} examples. "
                "Delete this file, and the labels are read from the records."
            )
        return labels
    return np.array([example["label"] for example in _undecoded(builder, split)], np.int32)


def _labels_path(builder: tfds.core.DatasetBuilder, split: str) -> Path:
    return Path(builder.data_dir) / f"labels-{split}.npy"


# Preparation


def _prepared_builder(name: str, data_dir: Path) -> tfds.core.GeneratorBasedBuilder:
    target = data_dir / name / str(_BUILDERS[name].VERSION)
    if not target.exists():
        _prepare(name, data_dir, target)
    if not (target / "dataset_info.json").exists():
        raise OSError(
            f"{target} is not a prepared data set (it has no dataset_info.json). "
            "Delete it, and it is prepared again; or set data.data_dir to another directory."
        )
    return _builder(name, data_dir)


def _builder(name: str, data_dir: Path) -> tfds.core.GeneratorBasedBuilder:
    config = name.partition("/")[2] or None
    return _BUILDERS[name](config=config, data_dir=data_dir, file_format="array_record")


def _prepare(name: str, data_dir: Path, target: Path) -> None:
    # TFDS itself prepares in a temporary directory, too, but names it by the global `random`
    # (two processes with one seed meet in it) and fails if another process was first.
    staging = _make_staging(data_dir, name)
    try:
        builder = _builder(name, staging)
        logging.info("Preparing data set %r in %s", name, target)
        # stdout is for a program's results, and TFDS would print the staging directory's name.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        for split in builder.info.splits:
            np.save(_labels_path(builder, split), _labels(builder, split))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(builder.data_dir, target)
        except OSError:
            if not target.exists():  # else another process was first, with the same data
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _make_staging(data_dir: Path, name: str) -> Path:
    if not data_dir.parent.is_dir():
        raise FileNotFoundError(
            f"data.data_dir={str(data_dir)!r}: {str(data_dir.parent)!r} does not exist. "
            "Create it, or set data.data_dir (or TFDS_DATA_DIR) to where data sets are kept."
        )
    if data_dir.exists() and not data_dir.is_dir():
        raise NotADirectoryError(
            f"data.data_dir={str(data_dir)!r} is a file. Set data.data_dir to a directory."
        )
    try:
        data_dir.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"incomplete.{name.replace('/', '.')}.", dir=data_dir))
    except OSError as error:
        raise OSError(
            f"data.data_dir={str(data_dir)!r} cannot be written ({error.strerror}), and "
            f"{name!r} is not prepared there. Make it writable, or set data.data_dir to another "
            "directory."
        ) from error


def _resolve(data_dir: str | os.PathLike | None) -> Path:
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in os.fspath(data_dir):
        raise ValueError(
            f"data.data_dir={os.fspath(data_dir)!r} is a URL, and data sets are read from a file "
            "system. Mount or copy it, and set data.data_dir to that directory."
        )
    return Path(data_dir).expanduser().absolute()


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return f"{hint}; there are: {', '.join(names)}"
