"""Records of prepared TFDS directories by random access, as bytes: array_record and tfrecord."""

import mmap
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.core.utils.shard_utils import FileInstruction
from tensorflow_datasets.proto import tf_example_pb2


class TfRecords(Sequence):
    """The records of tfrecord files, mapped into memory.

    Such a file has no index: its records are counted once, hopping from length to length. It is a
    row of (uint64 length, uint32 checksum of it, data, uint32 checksum), little-endian.

    Raises:
      OSError: a file is missing, cut off, or has not the records that are expected of it.
    """

    def __init__(self, parts: Sequence[FileInstruction], starts: Sequence[np.ndarray]):
        """The parts, and for each file the offsets at which its records start: `find_starts`."""
        self._parts = [(part.filename, part.skip) for part in parts]
        self._starts = starts
        self._ends = np.cumsum([part.take for part in parts])
        self._open()

    def _open(self) -> None:
        self._lock, self._files = threading.Lock(), {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: int) -> bytes:
        i = range(len(self))[i]  # IndexError beyond the end, as a Sequence must
        part = int(np.searchsorted(self._ends, i, side="right"))
        before = self._ends[part - 1] if part else 0
        filename, skip = self._parts[part]
        start = int(self._starts[part][skip + i - before])
        file = self._file(filename)
        (length,) = struct.unpack_from("<Q", file, start)
        return file[start + 12 : start + 12 + length]

    def _file(self, filename: str) -> mmap.mmap:
        with self._lock:
            if filename not in self._files:
                self._files[filename] = _map(filename)
            return self._files[filename]

    def __getstate__(self) -> dict:
        return {key: self.__dict__[key] for key in ("_parts", "_starts", "_ends")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()


def find_starts(filename: str, expected: int) -> np.ndarray:
    """Where the records of a tfrecord file start, (expected,) int64.

    Raises:
      OSError: the file is missing, cut off, or has another number of records.
    """
    starts, start = [], 0
    with _map(filename) as file:
        while start < len(file):
            starts.append(start)
            if start + 12 > len(file):
                break
            start += 16 + struct.unpack_from("<Q", file, start)[0]
        size = len(file)
    if start != size or len(starts) != expected:
        cut = "is cut off" if start != size else f"has {len(starts)} records"
        raise OSError(
            f"{filename} {cut}, and dataset_info.json speaks of {expected} records: copy the data "
            "set again"
        )
    return np.array(starts, np.int64)


def open_records(
    info: tfds.core.SplitInfo, file_format: str, starts_of: Callable[[str, int], np.ndarray]
) -> Sequence[bytes]:
    """The records of a split, or of a part of one, in their order; threads may share them.

    Args:
      info: ``builder.info.splits[split]``.
      file_format: "array_record" or "tfrecord".
      starts_of: takes a tfrecord file's name and its number of records; `find_starts`, or what
        remembers it.

    Raises:
      OSError: a file is missing or cut off.
      ValueError: another format.
    """
    parts = info.file_instructions
    for part in parts:
        if not Path(part.filename).is_file():
            raise FileNotFoundError(f"{part.filename} is missing: copy the data set again")
    if file_format == "array_record":
        return ArrayRecordDataSource(parts)
    if file_format == "tfrecord":
        starts = [starts_of(part.filename, part.examples_in_shard) for part in parts]
        return TfRecords(parts, starts)
    raise ValueError(
        f"{Path(parts[0].filename).parent} is stored as {file_format}, and array_record and "
        "tfrecord can be read: prepare the data set in one of these"
    )


def image_of(record: bytes) -> bytes:
    """The encoded image of a record, a serialised tf.train.Example."""
    return _features(record)["image"].bytes_list.value[0]


def label_of(record: bytes) -> int:
    """The label of a record."""
    return _features(record)["label"].int64_list.value[0]


def _features(record: bytes) -> dict:
    return tf_example_pb2.Example.FromString(record).features.feature


def _map(filename: str) -> mmap.mmap:
    with open(filename, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
