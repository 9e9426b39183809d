"""Random access to the records of prepared TFDS directories: array_record and tfrecord.

Both formats store a checksum for each record, which is verified when the record is read.
"""

import bisect
import errno
import itertools
import os
import struct
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf.message import DecodeError
from tensorflow_datasets.core.utils.shard_utils import FileInstruction
from tensorflow_datasets.proto import tf_example_pb2

from pnoise_jax.data import notice
from pnoise_jax.data.stored import open_files

_LENGTH, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")
# The features of data sets whose images have several labels, such as TFDS's imagenet2012_real.
ORIGINAL_LABEL, LABEL_SET = "original_label", "real_label"
_FRAME = _LENGTH.size + _CHECKSUM.size  # bytes of a record in a tfrecord file, minus its data


class Records(Sequence[bytes]):
    """The records of some files, in order; thread-safe and picklable.

    A file is opened when one of its records is read. If there are more files than the process may
    open, the least recently used are closed.
    """

    def __init__(self, parts: Sequence[FileInstruction]):
        """Takes the rows [skip, skip + take) of the file of each part."""
        self._parts = list(parts)
        self._ends = list(itertools.accumulate(part.take for part in self._parts))
        self._own_files()

    def _own_files(self) -> None:
        self._owner = object()
        forget = weakref.finalize(self, open_files.SHARED.forget, self._owner)
        forget.atexit = False  # the system closes the files when the process exits

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, i: int) -> bytes:
        """Record i.

        Raises:
          IndexError: i is out of range.
          OSError: the record is damaged or cannot be read; names the file and the row.
        """
        i = range(len(self))[i]
        part = bisect.bisect_right(self._ends, i)
        row = i - self._first(part) + self._parts[part].skip
        return self._read(part, row, row + 1)[0]

    def block(self, start: int, stop: int) -> list[bytes]:
        """Records start, ..., stop - 1, in one read per file; raises as `__getitem__`."""
        block: list[bytes] = []
        while start < stop:
            part = bisect.bisect_right(self._ends, start)
            end = min(stop, self._ends[part])
            shift = self._parts[part].skip - self._first(part)
            block += self._read(part, start + shift, end + shift)
            start = end
        return block

    def _first(self, part: int) -> int:
        return self._ends[part - 1] if part else 0

    def _file(self, part: int) -> Any:
        return open_files.SHARED.get(self._owner, part, lambda: self._open(self._parts[part]))

    @abstractmethod
    def _open(self, part: FileInstruction) -> Any:
        """Opens the file of a part; any thread may read from it."""

    @abstractmethod
    def _read(self, part: int, first: int, last: int) -> list[bytes]:
        """The rows [first, last) of a part's file."""

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_owner"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._own_files()


class ArrayRecords(Records):
    """The records of array_record files."""

    def _open(self, part: FileInstruction) -> ArrayRecordReader:
        # As ArrayRecordDataSource does. But that calls `read([row])`, which takes longer the more
        # rows the file has; the time of `read(row, row + 1)` does not depend on their number.
        reader = ArrayRecordReader(
            part.filename, options="readahead_buffer_size:0", file_reader_buffer_size=32_768
        )
        if not reader.ok():
            raise _named(part.filename, "cannot be opened", _failure(reader))
        _require_number(part.filename, reader.num_records(), part.examples_in_shard)
        return reader

    def _read(self, part: int, first: int, last: int) -> list[bytes]:
        try:
            return self._file(part).read(first, last)
        except (RuntimeError, IndexError) as error:  # array_record raises these for any problem
            if last - first > 1:  # read one by one, to name the damaged record
                return [self._read(part, row, row + 1)[0] for row in range(first, last)]
            reason = f"record {first} of the file is damaged"
            raise _named(self._parts[part].filename, reason, first_line(error)) from error


class TfRecords(Records):
    """The records of tfrecord files.

    Such a file has no index: `find_bounds` locates its records once, hopping from length to length.
    It is a sequence of (uint64 length, uint32 checksum of the length, data, uint32 checksum of the
    data), little-endian.
    """

    def __init__(self, parts: Sequence[FileInstruction], bounds: Sequence[np.ndarray]):
        """Takes the parts and, for the file of each part, the result of `find_bounds`."""
        super().__init__(parts)
        self._bounds = bounds

    def _open(self, part: FileInstruction) -> open_files.Descriptor:
        return open_files.Descriptor(part.filename)

    def _read(self, part: int, first: int, last: int) -> list[bytes]:
        file = self._file(part)
        try:
            return [self._row(file.number, part, row) for row in range(first, last)]
        except OSError as error:
            if error.errno is None:
                raise
            reason = f"record {first} of the file cannot be read"
            raise _named(self._parts[part].filename, reason, str(error)) from error

    def _row(self, file: int, part: int, row: int) -> bytes:
        start, end = map(int, self._bounds[part][row : row + 2])
        # Not in a single read: splitting the result would copy the data.
        data = os.pread(file, end - start - _FRAME, start + _LENGTH.size)
        rest = os.pread(file, _CHECKSUM.size, end - _CHECKSUM.size)
        filename = self._parts[part].filename
        if len(data) + len(rest) != end - start - _LENGTH.size:
            raise _named(filename, "has changed or is cut off", f"at record {row}")
        if _CHECKSUM.unpack(rest)[0] != _masked_crc32c(data):
            raise _named(filename, f"record {row} of the file is damaged", "wrong checksum")
        return data


def find_bounds(filename: str, expected: int) -> np.ndarray:
    """The offsets at which the records of a tfrecord file start, and at which the last one ends.

    Returns:
      (expected + 1,) int64: bytes from the start of the file.

    Raises:
      OSError: the file is missing, damaged or cut off, or does not have `expected` records.
    """
    file = open_files.SHARED.make_room(lambda: open_files.Descriptor(filename))
    size = os.fstat(file.number).st_size
    bounds = [0]
    while bounds[-1] + _LENGTH.size <= size:
        head = os.pread(file.number, _LENGTH.size, bounds[-1])
        length, checksum = _LENGTH.unpack(head)
        if checksum != _masked_crc32c(head[:8]):
            raise _named(filename, f"is damaged at byte {bounds[-1]}", "wrong checksum of a length")
        bounds.append(bounds[-1] + length + _FRAME)
    if bounds[-1] != size:
        raise _named(filename, "is cut off", f"{size} bytes, but its records need {bounds[-1]}")
    _require_number(filename, len(bounds) - 1, expected)
    return np.array(bounds, np.int64)


def open_records(
    info: tfds.core.SplitInfo, file_format: str, bounds_of: Callable[[str, int], np.ndarray]
) -> Records:
    """Opens the records of a split, or of a part of one, in order; threads may share them.

    Args:
      info: ``builder.info.splits[split]``.
      file_format: "array_record" or "tfrecord".
      bounds_of: `find_bounds`, or a function that caches its results; called with the name of a
        tfrecord file and its number of records.

    Raises:
      OSError: a file is missing, empty or cut off.
      ValueError: the data set has another format.
    """
    parts = info.file_instructions
    require_files(part.filename for part in parts)
    open_files.allow(len(parts))
    if (kept := open_files.capacity()) < len(parts):
        notice.tell_once(
            f"{Path(parts[0].filename).parent} has {len(parts)} files of records, but only {kept} "
            "can stay open at a time, which makes reading slower: raise the limit on open files "
            "(ulimit -n)"
        )
    if file_format == "array_record":
        return ArrayRecords(parts)
    if file_format == "tfrecord":
        with ThreadPoolExecutor(8) as pool:  # many, as they mostly wait for the disk
            bounds = list(pool.map(lambda p: bounds_of(p.filename, p.examples_in_shard), parts))
        return TfRecords(parts, bounds)
    raise ValueError(
        f"{Path(parts[0].filename).parent} is stored as {file_format}, but only array_record and "
        "tfrecord can be read: prepare the data set in one of these formats"
    )


def require_files(filenames: Iterable[str]) -> None:
    """Checks that files of records exist and are not empty.

    Raises:
      OSError: a file is missing or empty; names it.
    """
    for filename in filenames:
        if not os.path.isfile(filename):
            raise FileNotFoundError(f"{filename} is missing: copy the data set again")
        if not os.path.getsize(filename):
            raise OSError(f"{filename} is empty: copy the data set again")


def _example(record: bytes) -> Any:
    # Via vars(), as the module creates its classes at import, where type checkers do not see them.
    return vars(tf_example_pb2)["Example"].FromString(record)


def image_and_label(record: bytes, label: str = "label") -> tuple[bytes, int]:
    """The encoded image and the label of a record, a serialised tf.train.Example.

    Args:
      record: its bytes.
      label: the name of the label's feature.

    Raises:
      OSError: the record is not a valid Example, or lacks the image or the label.
    """
    name = "image"
    try:
        features = _example(record).features.feature
        image = features[name].bytes_list.value[0]
        name = label
        return image, features[name].int64_list.value[0]
    except (DecodeError, IndexError) as error:
        raise OSError(
            f"a damaged record, of {len(record)} bytes, without {name!r}: copy the data set again"
        ) from error


def label_set(record: bytes) -> tuple[int, ...]:
    """All labels of a record whose image may have several labels, or none.

    Raises:
      OSError: the record is not a valid Example, or has no such feature.
    """
    try:
        features = _example(record).features.feature
        if LABEL_SET in features:
            return tuple(features[LABEL_SET].int64_list.value)
    except DecodeError:
        pass
    raise OSError(
        f"a damaged record, of {len(record)} bytes, without {LABEL_SET!r}: copy the data set again"
    )


def padded(sets: Sequence[Sequence[int]]) -> np.ndarray:
    """Label sets as an (n, size of the largest set) int32 array, deduplicated, padded with -1."""
    sets = [list(dict.fromkeys(labels)) for labels in sets]
    width = max([1, *map(len, sets)])
    rows = np.full((len(sets), width), -1, np.int32)
    for row, labels in zip(rows, sets, strict=True):
        row[: len(labels)] = labels
    return rows


def _require_number(filename: str, number: int, expected: int) -> None:
    if number != expected:
        raise _named(filename, f"has {number} records", f"dataset_info.json says {expected}")


def _failure(reader: ArrayRecordReader) -> str:
    """The reason why the file could not be opened."""
    try:
        reader.seek(0)
    except RuntimeError as error:
        return first_line(error)
    return "unknown reason"


def _named(filename: str, problem: str, reason: str) -> OSError:
    if os.strerror(errno.EMFILE) in reason:
        return OSError(errno.EMFILE, reason)
    return OSError(f"{filename} {problem} ({reason}): copy the data set again")


def first_line(error: Exception) -> str:
    """The first line of the error's message, or of its repr if the message is empty."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def _masked_crc32c(data: bytes) -> int:
    """The CRC-32C as masked in tfrecord files: rotated, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
