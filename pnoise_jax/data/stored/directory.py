"""The directory of a prepared TFDS data set: its splits, labels and records."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pnoise_jax.buckets import BucketPath
from pnoise_jax.data import notice
from pnoise_jax.data.remembered import cached_path, load_array, remembered
from pnoise_jax.data.splits import parse_split
from pnoise_jax.data.stored import copies, manifest, records
from pnoise_jax.data.stored.copies import Copy
from pnoise_jax.data.stored.records import LABEL_SET, ORIGINAL_LABEL

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_BLOCK = 4 << 20  # bytes of records that a thread reads at a time, approximately


_INFO = "dataset_info.json"  # present in every completely prepared data set


def newest_version(directory: Path) -> Path | None:
    """The newest ``<directory>/<major.minor.patch>`` with a complete data set, or None."""
    paths = directory.iterdir() if directory.is_dir() else ()
    newest = _newest(path.name for path in paths if (path / _INFO).is_file())
    return None if newest is None else directory / newest


def copy_version(directory: BucketPath, version: str | None = None) -> Copy | None:
    """Copies the newest version, or `version`, to this machine, except for its records.

    Returns:
      The copy; None if the bucket has no such complete version.

    Raises:
      OSError: the bucket cannot be read, or the disk cannot be written.
    """
    versions = copies.files_below(directory)
    whole = {name for name, files in versions.items() if _INFO in {file.name for file in files}}
    taken = _newest(whole if version is None else whole & {version})
    return None if taken is None else Copy(directory / taken, versions[taken])


def _newest(names: Iterable[str]) -> str | None:
    matches = [match for name in names if (match := _VERSION.fullmatch(name))]
    return max(matches, key=lambda match: tuple(map(int, match.groups())))[0] if matches else None


class PreparedDirectory:
    """A data set with the features "image" and "label", prepared by TFDS or `pnoise prepare`.

    Instead of "label", it may have the features of imagenet2012_real: "original_label", and
    "real_label", a set of labels.

    Attributes:
      path: the directory that contains ``dataset_info.json`` and ``features.json``.
      num_classes: labels are 0..num_classes-1.
      class_names: the names of classes 0, 1, …; if they were never named, numbers, as in TFDS.
      declared_shape: the (height, width, channels) of the images, as declared by the data set; each
        is None if left open.
      image_dtype: the dtype of the images, as declared by the data set.
      image_shape: `declared_shape` if nothing is left open, else None.
      has_label_sets: whether an image has a set of labels, each of which is correct.
      is_listed: whether records are stored in the order in which they were listed, instead of
        TFDS's hashed order, which is practically random.
    """

    def __init__(self, path: Path, name: str, *, copy: Copy | None = None):
        """Opens the directory of data set ``name``.

        Args:
          path: the directory of one version.
          name: the name of the data set, for error messages.
          copy: if the directory is a copy of one in a bucket, the object that copies its records.

        Raises:
          OSError: this is not a prepared data set, TFDS cannot read it, or a file has changed since
            it was prepared.
          ValueError: it has no "image" or no "label", or another version of this package prepared
            it (see `manifest.read`).
        """
        if not (path / "dataset_info.json").is_file():
            raise OSError(
                f"{path} is not a prepared data set (it has no dataset_info.json). "
                "Delete it and prepare it again, or set data.data_dir to another directory."
            )
        self._manifest = manifest.read(path)
        self._manifest.check_metadata()
        if self._manifest.is_ours and self._manifest.files is None:
            notice.tell_once(
                f"{path} was prepared before checksums were recorded, so it is not known whether "
                "its files have changed since. Each record is still verified against its own "
                "checksum and its label when it is read"
            )
        self.path, self._name, self._copy = path, name, copy
        try:
            # TFDS annotates a feature looked up by name as a union of many types, or None.
            self._info: Any = tfds.builder_from_directory(path).info
            features: Any = self._info.features
        except Exception as error:  # damaged files may raise anything
            raise OSError(
                f"{path} cannot be read as a prepared data set by tensorflow-datasets "
                f"{tfds.__version__} ({records.first_line(error)}). Was it prepared by another "
                "version? Delete it and prepare it again, or set data.data_dir to another "
                "directory."
            ) from error
        image, label = _feature(features, "image"), _feature(features, "label")
        original, several = (_feature(features, x) for x in (ORIGINAL_LABEL, LABEL_SET))
        sets = isinstance(getattr(several, "feature", None), tfds.features.ClassLabel)
        self.has_label_sets = label is None and sets
        self._label = ORIGINAL_LABEL if self.has_label_sets else "label"
        label = original if self.has_label_sets else label
        if not (
            isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
        ):
            raise ValueError(
                f"data.name={name!r} has the features {', '.join(sorted(features))}: without an "
                "'image' and a class 'label', it is not a data set for classification"
            )
        self.is_listed = bool(self._info.disable_shuffling)
        self.class_names = _class_names(label, path / f"{self._label}.labels.txt")
        self.num_classes = len(self.class_names)
        self.declared_shape, self.image_dtype = _shape_and_dtype(image)
        self.image_shape = None if None in self.declared_shape else self.declared_shape

    def errors_named(self) -> contextlib.AbstractContextManager[None]:
        """A context in which errors about copied files say what they are a copy of."""
        return contextlib.nullcontext() if self._copy is None else self._copy.named()

    def read(self, split: str) -> tuple[np.ndarray, Sequence[bytes]]:
        """Labels (n,) int32 and encoded images of a split, of a part of one, or of joined splits.

        Reading an image raises OSError unless its record has the label that is returned here.

        Raises:
          ValueError: there is no such split, or it is empty.
          OSError: a file is missing or damaged.
        """
        parts = self.parts(split)
        labels = np.concatenate([self.labels(whole)[part] for whole, part in parts])
        whole = self._open(self._info.splits[split])
        return labels, _Images(whole, labels, self._where(parts), self._label)

    def label_sets(self, split: str) -> np.ndarray | None:
        """All correct labels of each image of a split, (n, k) int32, padded with -1.

        An image may have no label. Returns None if every image has exactly one.

        Raises:
          ValueError, OSError: as `read`.
        """
        if not self.has_label_sets:
            return None
        parts = [self._whole_label_sets(whole)[part] for whole, part in self.parts(split)]
        width = max(part.shape[1] for part in parts)
        fill = {"mode": "constant", "constant_values": -1}
        return np.concatenate(
            [np.pad(part, ((0, 0), (0, width - part.shape[1])), **fill) for part in parts]
        )

    def _whole_label_sets(self, split: str) -> np.ndarray:
        number = self._info.splits[split].num_examples
        path = self._array_path("label_sets", split)
        if path.parent == self.path:
            self._manifest.check_labels(path.name)
            sets = _load_array(path)
        else:
            sets = remembered(path, number, lambda: self._recorded_label_sets(split), axes=2)
        is_right = sets.ndim == 2 and len(sets) == number and sets.dtype.kind in "iu"
        if not is_right or not -1 <= sets.min() <= sets.max() < self.num_classes:
            raise OSError(
                f"{path}: {sets.dtype} {sets.shape} is not a set of labels from 0 to "
                f"{self.num_classes - 1} for each of {number} images; delete this file, and they "
                "will be read from the records"
            )
        return sets.astype(np.int32)

    def labels(self, split: str) -> np.ndarray:
        """All labels of a whole split, (n,) int32.

        They are loaded from the file of labels next to the records. If there is none, they are read
        from the records once, and then kept in the user's cache.
        """
        info = self._info.splits[split]
        path = self._array_path("labels", split)
        if path.parent == self.path:
            where, advice = (
                str(path),
                "; delete this file, and the labels will be read from the records",
            )
            if self._manifest.check_labels(path.name):
                advice = ""
            labels = _load_array(path)
        else:
            where, advice = f"{self.path}, split {split!r}", ""
            labels = remembered(path, info.num_examples, lambda: self.recorded_labels(split))
        problem = self._wrong_labels(labels, info.num_examples)
        if problem:
            raise OSError(f"{where}: {problem}{advice}")
        return labels.astype(np.int32)

    def _array_path(self, what: str, split: str) -> Path:
        """The file of the labels or label sets; in the user's cache, it may not exist yet."""
        prepared = self.path / f"{what}-{split}.npy"
        if prepared.exists():
            return prepared
        files = [part.filename for part in self._info.splits[split].file_instructions]
        self._fetch(files)
        records.require_files(files)
        return cached_path(prepared.stem, [self.path / "dataset_info.json", *files])

    def _where(self, parts: list[tuple[str, slice]]) -> list[tuple[int, Path]]:
        """For each part: its end in the sequence of all examples, and its file of labels."""
        sizes = (len(range(self._info.splits[whole].num_examples)[part]) for whole, part in parts)
        paths = (self._array_path("labels", whole) for whole, _ in parts)
        return list(zip(itertools.accumulate(sizes), paths, strict=True))

    def _wrong_labels(self, labels: np.ndarray, number: int) -> str:
        """Describes what is wrong with the labels of `number` examples; "" if nothing is."""
        if labels.shape != (number,) or not np.issubdtype(labels.dtype, np.integer):
            return f"{labels.dtype} {labels.shape}, but {number} integers are expected"
        if number and not 0 <= labels.min() <= labels.max() < self.num_classes:
            return (
                f"labels from {labels.min()} to {labels.max()}, but there are {self.num_classes} "
                f"classes, 0 to {self.num_classes - 1}: is this a split without labels?"
            )
        return ""

    def recorded_labels(self, split: str) -> np.ndarray:
        """All labels of a whole split, (n,) int32, extracted by reading every record."""

        def label_of(record: bytes) -> int:
            return records.image_and_label(record, self._label)[1]

        return np.array(self._of_each(split, label_of), np.int32)

    def _recorded_label_sets(self, split: str) -> np.ndarray:
        return records.padded(self._of_each(split, records.label_set))

    def _of_each(self, split: str, function: Callable[[bytes], Any]) -> list[Any]:
        """The results of `function` for each record of a whole split, in order."""
        info = self._info.splits[split]
        whole = self._open(info)
        number = len(whole)
        size = sum(Path(part.filename).stat().st_size for part in info.file_instructions)
        length = max(1, min(1024, _BLOCK * number // size))

        def read(start: int) -> list[Any]:
            return [function(x) for x in whole.block(start, min(start + length, number))]

        what = f"reading the labels of {self.path}, split {split!r}, once"
        with ThreadPoolExecutor(16) as pool:  # many, as they mostly wait for the disk
            parts = pool.map(read, range(0, number, length))
            return [x for part in notice.told(parts, what, number) for x in part]

    def _fetch(self, files: Iterable[str]) -> None:
        if self._copy is not None:
            self._copy.fetch(Path(file).name for file in files)

    def _open(self, info: tfds.core.SplitInfo) -> records.Records:
        files = [part.filename for part in info.file_instructions]
        searched = itertools.count()
        self._fetch(files)
        self._manifest.check_records(Path(file).name for file in files)

        def bounds_of(filename: str, number: int) -> np.ndarray:
            # Reading the length of every record takes one seek each: minutes on a cold disk.
            def find() -> np.ndarray:
                before = next(searched)
                if number * len(files) >= notice.MANY and before % -(-len(files) // 10) == 0:
                    notice.tell(
                        f"indexing the records of {self.path}, once: {before} of {len(files)} files"
                    )
                return records.find_bounds(filename, number)

            path = cached_path(f"bounds-{Path(filename).name}", [filename])
            return remembered(path, number + 1, find)

        return records.open_records(info, self._info.file_format.value, bounds_of)

    def parts(self, split: str) -> list[tuple[str, slice]]:
        """The whole splits and slices that `split` joins; see `parse_split`, also for errors."""
        lengths = {name: info.shard_lengths for name, info in self._info.splits.items()}
        return parse_split(split, lengths, where=str(self.path))


class _Images(Sequence):
    """The encoded images of records; raises OSError if a record has an unexpected label."""

    def __init__(
        self,
        whole: Sequence[bytes],
        labels: np.ndarray,
        where: Sequence[tuple[int, Path]],
        feature: str,
    ):
        self._records, self._labels, self._where = whole, labels, where
        self._feature = feature

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> bytes:
        i = range(len(self))[i]  # raises IndexError if out of range
        image, label = records.image_and_label(self._records[i], self._feature)
        if label != self._labels[i]:
            path = next(path for end, path in self._where if i < end)
            raise OSError(
                f"its record says label {label}, but {path} says {self._labels[i]}; if the records "
                "are correct, delete that file, and the labels will be read from them"
            )
        return image


def _load_array(file: Path) -> np.ndarray:
    try:
        return load_array(file)
    except (OSError, ValueError, EOFError) as error:
        raise OSError(
            f"{file} cannot be read ({records.first_line(error)}): delete it, and the labels will "
            "be read from the records"
        ) from error


def _class_names(label: tfds.features.ClassLabel, file: Path) -> tuple[str, ...]:
    """The names of the classes; TFDS reads them from `file`, without checking their number."""
    try:
        is_empty = file.exists() and not file.read_text(encoding="utf-8").strip()
    except ValueError:
        is_empty = True
    names = tuple(label.names)
    if is_empty or len(set(names)) != label.num_classes or len(names) != label.num_classes:
        raise OSError(
            f"{file} does not contain {label.num_classes} different class names in UTF-8: copy the "
            "data set again"
        )
    return names


def _shape_and_dtype(image: Any) -> tuple[tuple[Any, ...], np.dtype]:
    return tuple(image.shape), np.dtype(image.np_dtype)


def _feature(features: Any, name: str) -> Any:
    return features[name] if name in features else None  # noqa: SIM401, it has no get()
