"""A directory that holds a prepared TFDS data set: its splits, labels and records."""

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
from pnoise_jax.data import copies, manifest, notice, records
from pnoise_jax.data.copies import Copy
from pnoise_jax.data.records import LABEL_SET, ORIGINAL_LABEL
from pnoise_jax.data.remembered import cached_path, load_array, remembered
from pnoise_jax.data.splits import parse_split

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_BLOCK = 4 << 20  # bytes of records that a thread reads at a time, about


_INFO = "dataset_info.json"  # what a whole data set has


def newest_version(directory: Path) -> Path | None:
    """Of ``<directory>/<major.minor.patch>`` the newest that holds a whole data set, or None."""
    paths = directory.iterdir() if directory.is_dir() else ()
    newest = _newest(path.name for path in paths if (path / _INFO).is_file())
    return None if newest is None else directory / newest


def copy_version(directory: BucketPath, version: str | None = None) -> Copy | None:
    """As `newest_version`, or one version, copied to this machine but for its records.

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
    """A data set that TFDS, or `launch.prepare`, has prepared, with an "image" and a "label".

    Or with the "original_label" and the "real_label" of imagenet2012_real, a set of labels.

    Attributes:
      path: the directory; ``dataset_info.json`` and ``features.json`` lie in it.
      num_classes: labels are 0..num_classes-1.
      class_names: of labels 0, 1, …; numbers, as TFDS has them, where they were never named.
      declared_shape: of the images, (height, width, channels), as the data set says; None where
        it leaves one of them open.
      image_dtype: of the images, as the data set says.
      image_shape: `declared_shape` where nothing is left open, else None.
      has_label_sets: whether an image has a set of labels, each of which is correct.
      is_listed: whether records are in the order in which they were listed, not in TFDS's hashed
        order, which is as good as random.
    """

    def __init__(self, path: Path, name: str, *, copy: Copy | None = None):
        """Opens the directory of data set ``name``, of which ``copy`` copies more where it is one.

        Raises:
          OSError: this is not a prepared data set, or TFDS cannot read it.
          ValueError: it has no "image" or no "label", or `manifest.read` raises it.
        """
        if not (path / "dataset_info.json").is_file():
            raise OSError(
                f"{path} is not a prepared data set (it has no dataset_info.json). "
                "Delete it, and prepare it again; or set data.data_dir to another directory."
            )
        self._manifest = manifest.read(path)
        self._manifest.check_metadata()
        if self._manifest.is_ours and self._manifest.files is None:
            notice.tell_once(
                f"{path} was prepared before checksums were recorded: whether its files have "
                "changed since is not known. Each record is compared with its own checksum, and "
                "with its label, when it is read"
            )
        self.path, self._name, self._copy = path, name, copy
        try:
            # TFDS annotates what it has by name as one of many things, or None.
            self._info: Any = tfds.builder_from_directory(path).info
            features: Any = self._info.features
        except Exception as error:  # whatever is wrong with the files
            raise OSError(
                f"{path} cannot be read as a prepared data set by tensorflow-datasets "
                f"{tfds.__version__} ({records.first_line(error)}). Was it prepared by another "
                "version? Delete it and prepare it again, or set data.data_dir to another place."
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
                f"data.name={name!r} has {', '.join(sorted(features))}: no 'image' with a class "
                "'label' among them, so it is not a data set for classification"
            )
        self.is_listed = bool(self._info.disable_shuffling)
        self.class_names = _class_names(label, path / f"{self._label}.labels.txt")
        self.num_classes = len(self.class_names)
        self.declared_shape, self.image_dtype = _shape_and_dtype(image)
        self.image_shape = None if None in self.declared_shape else self.declared_shape

    def errors_named(self) -> contextlib.AbstractContextManager[None]:
        """In this context errors of files say it where these are copies."""
        return contextlib.nullcontext() if self._copy is None else self._copy.named()

    def read(self, split: str) -> tuple[np.ndarray, Sequence[bytes]]:
        """Labels, (n,) int32, and encoded images of a split, or of a part or join of splits.

        An image is only given out if its record has the label that is returned here.

        Raises:
          ValueError: there is no such split, or it holds no example.
          OSError: a file is missing or damaged.
        """
        parts = self.parts(split)
        labels = np.concatenate([self.labels(whole)[part] for whole, part in parts])
        whole = self._open(self._info.splits[split])
        return labels, _Images(whole, labels, self._where(parts), self._label)

    def label_sets(self, split: str) -> np.ndarray | None:
        """The labels that are correct for each image of a split, (n, k) int32, padded with -1.

        None where each image has one label. An image may have none.

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
                "are read from the records"
            )
        return sets.astype(np.int32)

    def labels(self, split: str) -> np.ndarray:
        """All labels of a whole split, (n,) int32: from the file beside the records, if there is.

        Else they are read from the records, once: then they are kept in the user's cache.
        """
        info = self._info.splits[split]
        path = self._array_path("labels", split)
        if path.parent == self.path:
            where, advice = (
                str(path),
                "; delete this file, and the labels are read from the records",
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
        """The file of the labels, or of their sets, which may not exist yet."""
        beside = self.path / f"{what}-{split}.npy"
        if beside.exists():
            return beside
        files = [part.filename for part in self._info.splits[split].file_instructions]
        self._fetch(files)
        records.require_files(files)
        return cached_path(beside.stem, [self.path / "dataset_info.json", *files])

    def _where(self, parts: list[tuple[str, slice]]) -> list[tuple[int, Path]]:
        """For each part in turn: where it ends in the sequence of all, and its file of labels."""
        sizes = (len(range(self._info.splits[whole].num_examples)[part]) for whole, part in parts)
        paths = (self._array_path("labels", whole) for whole, _ in parts)
        return list(zip(itertools.accumulate(sizes), paths, strict=True))

    def _wrong_labels(self, labels: np.ndarray, number: int) -> str:
        """What is wrong with the labels of `number` examples, "" if nothing."""
        if labels.shape != (number,) or not np.issubdtype(labels.dtype, np.integer):
            return f"{labels.dtype} {labels.shape}, where the {number} examples need whole numbers"
        if number and not 0 <= labels.min() <= labels.max() < self.num_classes:
            return (
                f"labels from {labels.min()} to {labels.max()}, and there are {self.num_classes} "
                f"classes, 0 to {self.num_classes - 1}: is it a split without labels?"
            )
        return ""

    def recorded_labels(self, split: str) -> np.ndarray:
        """All labels of a whole split as the records have them: every record is read."""

        def label_of(record: bytes) -> int:
            return records.image_and_label(record, self._label)[1]

        return np.array(self._of_each(split, label_of), np.int32)

    def _recorded_label_sets(self, split: str) -> np.ndarray:
        return records.padded(self._of_each(split, records.label_set))

    def _of_each(self, split: str, function: Callable[[bytes], Any]) -> list[Any]:
        """What a function makes of each record of a whole split."""
        info = self._info.splits[split]
        whole = self._open(info)
        number = len(whole)
        size = sum(Path(part.filename).stat().st_size for part in info.file_instructions)
        length = max(1, min(1024, _BLOCK * number // size))

        def read(start: int) -> list[Any]:
            return [function(x) for x in whole.block(start, min(start + length, number))]

        what = f"reading the labels of {self.path}, split {split!r}, once"
        with ThreadPoolExecutor(16) as pool:  # each mostly waits for the disk
            found = pool.map(read, range(0, number, length))
            return [x for part in notice.told(found, what, number) for x in part]

    def _fetch(self, files: Iterable[str]) -> None:
        if self._copy is not None:
            self._copy.fetch(Path(file).name for file in files)

    def _open(self, info: tfds.core.SplitInfo) -> records.Records:
        files = [part.filename for part in info.file_instructions]
        searched = itertools.count()
        self._fetch(files)
        self._manifest.check_records(Path(file).name for file in files)

        def bounds_of(filename: str, number: int) -> np.ndarray:
            # Reading one number a record takes a seek each: minutes on a cold disk.
            def find() -> np.ndarray:
                before = next(searched)
                if number * len(files) >= notice.MANY and before % -(-len(files) // 10) == 0:
                    notice.tell(
                        f"finding the records of {self.path}, once: {before} of {len(files)} files"
                    )
                return records.find_bounds(filename, number)

            path = cached_path(f"bounds-{Path(filename).name}", [filename])
            return remembered(path, number + 1, find)

        return records.open_records(info, self._info.file_format.value, bounds_of)

    def parts(self, split: str) -> list[tuple[str, slice]]:
        """What the expression joins, as `parse_split`, whose errors it raises."""
        sizes = {name: info.num_examples for name, info in self._info.splits.items()}
        return parse_split(split, sizes, where=str(self.path))


class _Images(Sequence):
    """The encoded images of records whose labels are as expected."""

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
        i = range(len(self))[i]  # IndexError beyond
        image, label = records.image_and_label(self._records[i], self._feature)
        if label != self._labels[i]:
            path = next(path for end, path in self._where if i < end)
            raise OSError(
                f"its record says label {label}, and {path} says {self._labels[i]}; if the records "
                "are right, delete that file, and the labels are read from them"
            )
        return image


def _load_array(file: Path) -> np.ndarray:
    try:
        return load_array(file)
    except (OSError, ValueError, EOFError) as error:
        raise OSError(
            f"{file} cannot be read ({records.first_line(error)}): delete it, and the labels are "
            "read from the records"
        ) from error


def _class_names(label: tfds.features.ClassLabel, file: Path) -> tuple[str, ...]:
    """The names of classes; TFDS takes them from a file, and says nothing if it has too few."""
    try:
        is_empty = file.exists() and not file.read_text(encoding="utf-8").strip()
    except ValueError:
        is_empty = True
    names = tuple(label.names)
    if is_empty or len(set(names)) != label.num_classes or len(names) != label.num_classes:
        raise OSError(
            f"{file} does not have a name for each of the {label.num_classes} classes, all "
            "different, in UTF-8: copy the data set again"
        )
    return names


def _shape_and_dtype(image: Any) -> tuple[tuple[Any, ...], np.dtype]:
    return tuple(image.shape), np.dtype(image.np_dtype)


def _feature(features: Any, name: str) -> Any:
    return features[name] if name in features else None  # noqa: SIM401, it has no get()
