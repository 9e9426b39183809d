"""A directory that holds a prepared TFDS data set: its splits, labels and records."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from pnoise_jax.data import records

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def newest_version(directory: Path) -> Path | None:
    """Of ``<directory>/<major.minor.patch>`` the newest that holds a whole data set, or None."""
    found = [
        (tuple(map(int, match.groups())), path)
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (match := _VERSION.fullmatch(path.name)) and (path / "dataset_info.json").is_file()
    ]
    return max(found)[1] if found else None


class PreparedDirectory:
    """A data set that TFDS, or `launch.prepare`, has prepared, with an "image" and a "label".

    Attributes:
      path: the directory; ``dataset_info.json`` and ``features.json`` lie in it.
      num_classes: labels are 0..num_classes-1.
      image_shape: (height, width, channels), None where images differ in size.
    """

    def __init__(self, path: Path, name: str):
        """Opens the directory of data set ``name``.

        Raises:
          OSError: this is no prepared data set, or one that TFDS cannot read.
          ValueError: it has no "image" or no "label".
        """
        if not (path / "dataset_info.json").is_file():
            raise OSError(
                f"{path} is not a prepared data set (it has no dataset_info.json). "
                "Delete it, and prepare it again; or set data.data_dir to another directory."
            )
        self.path, self._name = path, name
        try:
            self._info = tfds.builder_from_directory(path).info
            features = self._info.features
        except Exception as error:  # whatever is wrong with the files
            raise OSError(
                f"{path} cannot be read as a prepared data set by tensorflow-datasets "
                f"{tfds.__version__} ({_first_line(error)}). Was it prepared by another version? "
                "Delete it and prepare it again, or set data.data_dir to another directory."
            ) from error
        image, label = _feature(features, "image"), _feature(features, "label")
        if not (
            isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
        ):
            raise ValueError(
                f"data.name={name!r} has {', '.join(sorted(features))}: no 'image' with a class "
                "'label' among them, so it is no data set for classification"
            )
        self.num_classes = label.num_classes
        self.image_shape = None if None in image.shape else tuple(image.shape)

    def read(self, split: str) -> tuple[np.ndarray, Sequence[bytes]]:
        """Labels, (n,) int32, and encoded images of a split, or of a part or join of splits.

        Raises:
          ValueError: there is no such split, or it holds no example.
          OSError: a file is missing or damaged.
        """
        parts = self._parse(split)
        labels = np.concatenate([self.labels(whole)[part] for whole, part in parts])
        info = self._info.splits[split]
        return labels, _Images(self._open(info))

    def labels(self, split: str) -> np.ndarray:
        """All labels of a whole split, (n,) int32: from the file beside the records, if there is.

        Else they are read from the records, once: then they are kept in the user's cache.
        """
        number = self._info.splits[split].num_examples
        beside = self.path / f"labels-{split}.npy"

        found = np.load(beside, allow_pickle=False) if beside.exists() else None
        if found is None:
            found = self._remembered(beside.name, number, lambda: self.recorded_labels(split))
        if found.shape != (number,):
            raise OSError(
                f"{beside} has labels of shape {found.shape}, and the split {number} examples. "
                "Delete this file, and the labels are read from the records."
            )
        return found

    def recorded_labels(self, split: str) -> np.ndarray:
        """All labels of a whole split as the records have them: every record is read."""
        logging.info("Reading the labels of %s's split %r, once", self.path, split)
        whole = self._open(self._info.splits[split])
        return np.array([records.label_of(_read(whole, i)) for i in range(len(whole))], np.int32)

    def _open(self, info: tfds.core.SplitInfo) -> Sequence[bytes]:
        def starts_of(filename: str, number: int) -> np.ndarray:
            # One number a record, and reading them takes a seek each: minutes on a cold disk.
            return self._remembered(
                f"starts-{Path(filename).name}.npy",
                number,
                lambda: records.find_starts(filename, number),
            )

        return records.open_records(info, self._info.file_format.value, starts_of)

    def _remembered(self, name: str, number: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """What ``compute`` gives, (number,); from the user's cache where it stands there."""
        info = self.path / "dataset_info.json"
        written = f"{self.path.resolve()} {info.stat().st_mtime_ns}"
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pnoise_jax"
        path = cache / hashlib.sha256(written.encode()).hexdigest()[:24] / name
        try:
            found = np.load(path, allow_pickle=False)
            if found.shape == (number,):
                return found
        except (OSError, ValueError, EOFError):
            pass  # there is none, or a broken one: it is computed again
        found = compute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{os.getpid()}-{name}")
            np.save(temporary, found)
            os.replace(temporary, path)
        except OSError as error:  # it is only slower without
            logging.warning("cannot remember %s in %s: %s", name, cache, error)
        return found

    def _parse(self, split: str) -> list[tuple[str, slice]]:
        """What the expression joins, in order: parts of whole splits."""
        splits: Mapping[str, Any] = self._info.splits
        try:
            instruction = tfds.core.ReadInstruction.from_spec(split)
            parts = [
                (part.splitname, slice(part.from_, part.to))
                for part in instruction.to_absolute(splits)
            ]
        except (ValueError, AssertionError, NotImplementedError) as error:
            problem = _first_line(error)
        else:
            if all(range(splits[whole].num_examples)[part] for whole, part in parts):
                return parts
            problem = "A part of it holds no example."
        sizes = ", ".join(f"{name} ({info.num_examples} examples)" for name, info in splits.items())
        raise ValueError(
            f"split={split!r} (data.train_split, data.test_split) cannot be read: {problem} "
            f"There are: {sizes}, and parts of them such as 'train[:300]'."
        )


class _Images(Sequence):
    """The encoded images of records."""

    def __init__(self, whole: Sequence[bytes]):
        self._records = whole

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> bytes:
        return records.image_of(_read(self._records, range(len(self))[i]))  # IndexError beyond


def _read(whole: Sequence[bytes], i: int) -> bytes:
    try:
        return whole[i]
    except RuntimeError as error:  # array_record's, of a damaged file
        raise OSError(f"record {i} is damaged: {_first_line(error)}") from error


def _feature(features: Any, name: str) -> Any:
    return features[name] if name in features else None  # noqa: SIM401, it has no get()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
