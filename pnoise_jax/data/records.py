"""Records of prepared TFDS directories by random access, as bytes: array_record and tfrecord."""

import errno
import mmap
import os
import resource
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from google.protobuf.message import DecodeError
from tensorflow_datasets.core.utils.shard_utils import FileInstruction
from tensorflow_datasets.proto import tf_example_pb2

_OTHER_FILES = 256  # that a process has open beside the records of one split
_MACOS_FILES = 10_240  # that macOS allows, where it says that there is no limit


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
        starts, row = self._starts[part], int(skip + i - before)
        file = self._file(filename)
        start = int(starts[row])
        end = int(starts[row + 1]) if row + 1 < len(starts) else len(file)
        if not start + 16 <= end <= len(file) or _length(file, start) != end - start - 16:
            raise OSError(f"{filename} has changed or is cut off: copy the data set again")
        return file[start + 12 : end - 4]

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
    size = os.path.getsize(filename)
    if size:  # else there is nothing to map
        with _map(filename) as file:
            while start + 12 <= size:
                starts.append(start)
                start += 16 + _length(file, start)
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
      OSError: a file is missing or cut off, or there are more than a process may open.
      ValueError: another format.
    """
    parts = info.file_instructions
    for part in parts:
        if not Path(part.filename).is_file():
            raise FileNotFoundError(f"{part.filename} is missing: copy the data set again")
    _allow_open_files(len(parts))
    if file_format == "array_record":
        return ArrayRecordDataSource(parts)
    if file_format == "tfrecord":
        with ThreadPoolExecutor(8) as pool:  # each mostly waits for the disk
            starts = list(pool.map(lambda p: starts_of(p.filename, p.examples_in_shard), parts))
        return TfRecords(parts, starts)
    raise ValueError(
        f"{Path(parts[0].filename).parent} is stored as {file_format}, and array_record and "
        "tfrecord can be read: prepare the data set in one of these"
    )


def read_record(whole: Sequence[bytes], i: int) -> bytes:
    """Record i, 0 <= i < len(whole).

    Raises:
      OSError: it cannot be read; says why.
    """
    try:
        return whole[i]
    except (RuntimeError, IndexError, ValueError) as error:  # array_record's, whatever is wrong
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        if os.strerror(errno.EMFILE) in reason:
            raise OSError(f"{reason}; raise the limit of open files (ulimit -n)") from error
        raise OSError(
            f"record {i} is damaged or not there ({reason}): copy the data set again"
        ) from error


def image_of(record: bytes) -> bytes:
    """The encoded image of a record, a serialised tf.train.Example.

    Raises:
      OSError: the record is none, or has no image.
    """
    return _only(record, "image", "bytes_list")


def label_of(record: bytes) -> int:
    """The label of a record; raises as `image_of`."""
    return _only(record, "label", "int64_list")


def _only(record: bytes, name: str, kind: str) -> Any:
    try:
        feature = tf_example_pb2.Example.FromString(record).features.feature[name]
        return getattr(feature, kind).value[0]
    except (DecodeError, IndexError) as error:
        raise OSError(
            f"a damaged record, of {len(record)} bytes, without {name!r}: copy the data set again"
        ) from error


def _allow_open_files(number: int) -> None:
    """Lets the process have so many files of records open, as all of them are after a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    needed = number + _OTHER_FILES
    if soft == unlimited or soft >= needed:
        return
    limit = hard
    if hard == unlimited:
        limit = _MACOS_FILES if sys.platform == "darwin" else max(needed, 1 << 16)
    if limit < needed:
        raise OSError(
            f"the data set has {number} files of records, and this process may have {limit} files "
            f"open: raise that to at least {needed} (ulimit -Hn, or LimitNOFILE, or nofile in "
            "/etc/security/limits.conf)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _length(file: mmap.mmap, start: int) -> int:
    return struct.unpack_from("<Q", file, start)[0]


def _map(filename: str) -> mmap.mmap:
    with open(filename, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise OSError(f"{filename} is empty: copy the data set again")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
