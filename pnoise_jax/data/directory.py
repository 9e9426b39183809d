"""A directory that holds a prepared TFDS data set: its splits, labels and records."""

import hashlib
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pnoise_jax.data import records
from pnoise_jax.terminal import say

PREPARATION = "preparation.json"  # what `launch.prepare` writes beside the records
FORMAT = 1  # of what it writes: what has another one is not read

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_LOADING = threading.Lock()  # NumPy parses headers by `ast`, which fails in threads in Python 3.11
_MANY = 20_000  # records, to read which takes so long that somebody may wonder


def newest_version(directory: Path) -> Path | None:
    """Of ``<directory>/<major.minor.patch>`` the newest that holds a whole data set, or None."""
    found = [
        (tuple(map(int, match.groups())), path)
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (match := _VERSION.fullmatch(path.name)) and (path / "dataset_info.json").is_file()
    ]
    return max(found)[1] if found else None


def preparation(directory: Path) -> dict[str, Any]:
    """How a data set was prepared: {"format": int, "short_side": int or None}.

    Raises:
      OSError: preparation.json cannot be read, or says something else; names it.
      ValueError: it was prepared by another version of this package.
    """
    file = directory / PREPARATION
    if not file.exists():  # TFDS has prepared it
        return {"format": FORMAT, "short_side": None}
    try:
        found = json.loads(file.read_text())
        kind, short_side = found["format"], found.get("short_side")
        if not isinstance(short_side, int | None):
            raise TypeError(f"short_side is {short_side!r}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise OSError(
            f"{file} cannot be read as what launch.prepare writes ({type(error).__name__}: "
            f"{error}): delete {directory} and prepare it again, or copy it again"
        ) from error
    if kind != FORMAT:
        raise ValueError(
            f"{directory} was prepared by another version of this program (format {kind}, and "
            f"this one knows {FORMAT}): delete it and prepare it again, or use another directory"
        )
    return {"format": kind, "short_side": short_side}


class PreparedDirectory:
    """A data set that TFDS, or `launch.prepare`, has prepared, with an "image" and a "label".

    Attributes:
      path: the directory; ``dataset_info.json`` and ``features.json`` lie in it.
      num_classes: labels are 0..num_classes-1.
      class_names: of labels 0, 1, …; numbers, as TFDS has them, where they were never named.
      image_shape: (height, width, channels), None where images differ in size.
    """

    def __init__(self, path: Path, name: str):
        """Opens the directory of data set ``name``.

        Raises:
          OSError: this is no prepared data set, or one that TFDS cannot read.
          ValueError: it has no "image" or no "label", or `preparation` raises it.
        """
        if not (path / "dataset_info.json").is_file():
            raise OSError(
                f"{path} is not a prepared data set (it has no dataset_info.json). "
                "Delete it, and prepare it again; or set data.data_dir to another directory."
            )
        preparation(path)
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
        self.class_names = tuple(label.names)
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
        if beside.exists():
            where, found = str(beside), _load_array(beside)
        else:
            where = f"{self.path}, split {split!r}"
            found = self._remembered(beside.name, number, lambda: self.recorded_labels(split))
        problem = self._wrong_labels(found, number)
        if problem:
            fix = "delete this file, and the labels are read from the records"
            raise OSError(f"{where}: {problem}" + (f"; {fix}" if beside.exists() else ""))
        return found.astype(np.int32)

    def _wrong_labels(self, found: np.ndarray, number: int) -> str:
        """What is wrong with the labels of so many examples, "" if nothing."""
        if found.shape != (number,) or not np.issubdtype(found.dtype, np.integer):
            return f"{found.dtype} {found.shape}, where the {number} examples need whole numbers"
        if number and not 0 <= found.min() <= found.max() < self.num_classes:
            return (
                f"labels from {found.min()} to {found.max()}, and there are {self.num_classes} "
                f"classes, 0 to {self.num_classes - 1}: is it a split without labels?"
            )
        return ""

    def recorded_labels(self, split: str) -> np.ndarray:
        """All labels of a whole split as the records have them: every record is read."""
        whole = self._open(self._info.splits[split])

        def read(i: int) -> int:
            return records.label_of(records.read_record(whole, i))

        what = f"reading the labels of {self.path}, split {split!r}, once"
        with ThreadPoolExecutor(16) as pool:  # each mostly waits for the disk
            parts = [range(i, min(i + 1024, len(whole))) for i in range(0, len(whole), 1024)]
            labels = pool.map(lambda part: [read(i) for i in part], parts)
            return np.array([x for part in _told(labels, what, len(whole)) for x in part], np.int32)

    def _open(self, info: tfds.core.SplitInfo) -> Sequence[bytes]:
        files, searched = len(info.file_instructions), itertools.count()

        def starts_of(filename: str, number: int) -> np.ndarray:
            # One number a record, and reading them takes a seek each: minutes on a cold disk.
            def find() -> np.ndarray:
                before = next(searched)
                if number * files >= _MANY and before % -(-files // 10) == 0:
                    _tell(f"finding the records of {self.path}, once: {before} of {files} files")
                return records.find_starts(filename, number)

            return self._remembered(f"starts-{Path(filename).name}.npy", number, find)

        return records.open_records(info, self._info.file_format.value, starts_of)

    def _remembered(self, name: str, number: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """What ``compute`` gives, (number,); from the user's cache where it stands there."""
        info = self.path / "dataset_info.json"
        written = f"{self.path.resolve()} {info.stat().st_mtime_ns}"
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pnoise_jax"
        path = cache / hashlib.sha256(written.encode()).hexdigest()[:24] / name
        try:
            with _LOADING:
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
            if number >= _MANY:
                _tell(f"cannot remember {name} in {cache}, so it is read anew each time: {error}")
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
        i = range(len(self))[i]  # IndexError beyond
        return records.image_of(records.read_record(self._records, i))


def _load_array(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise OSError(
            f"{file} cannot be read ({_first_line(error)}): delete it, and the labels are read "
            "from the records"
        ) from error


def _told(parts: Iterable[list], what: str, total: int) -> Iterator[list]:
    """The parts, of so many items together; at every tenth of many a line tells of it."""
    done, tenths = 0, 0
    if total >= _MANY:
        _tell(f"{what}: {total:,} records")
    for part in parts:
        done += len(part)
        if total >= _MANY and 10 * done // total > tenths:
            tenths = 10 * done // total
            _tell(f"{what}: {10 * tenths} %")
        yield part


def _tell(text: str) -> None:
    say(text, file=sys.stderr)


def _feature(features: Any, name: str) -> Any:
    return features[name] if name in features else None  # noqa: SIM401, it has no get()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
