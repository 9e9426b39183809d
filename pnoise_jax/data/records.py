"""Records of prepared TFDS directories by random access, as bytes: array_record and tfrecord.

Whatever is read is compared with the checksums that both formats have for each record.
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

from pnoise_jax.data import notice, open_files

_LENGTH, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")
# Of data sets whose images have several labels, as TFDS's imagenet2012_real has them.
ORIGINAL_LABEL, LABEL_SET = "original_label", "real_label"
_FRAME = _LENGTH.size + _CHECKSUM.size  # bytes of a tfrecord's record beside its data


class Records(Sequence[bytes]):
    """The records of some files, in their order; threads may share them, and it can be pickled.

    A file is opened when one of its records is read. Of more files than a process may have open
    those stay open that were used last.
    """

    def __init__(self, parts: Sequence[FileInstruction]):
        """The parts: of each file some rows, [skip, skip + take)."""
        self._parts = list(parts)
        self._ends = list(itertools.accumulate(part.take for part in self._parts))
        self._own_files()

    def _own_files(self) -> None:
        self._owner = object()
        forget = weakref.finalize(self, open_files.SHARED.forget, self._owner)
        forget.atexit = False  # the system closes them

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, i: int) -> bytes:
        """Record i.

        Raises:
          IndexError: beyond the end.
          OSError: it is damaged, or cannot be read; names the file and its row.
        """
        i = range(len(self))[i]
        part = bisect.bisect_right(self._ends, i)
        row = i - self._first(part) + self._parts[part].skip
        return self._read(part, row, row + 1)[0]

    def block(self, start: int, stop: int) -> list[bytes]:
        """Records start, ..., stop - 1, read in one go; raises as for one."""
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
        """The file of a part, to read from in any thread."""

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
        # As ArrayRecordDataSource does. But that reads a row by `read([row])`, in a time that grows
        # with the rows of the file; of `read(row, row + 1)` it does not depend on them.
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
        except (RuntimeError, IndexError) as error:  # whatever is wrong
            if last - first > 1:  # it tells of the row
                return [self._read(part, row, row + 1)[0] for row in range(first, last)]
            reason = f"record {first} of the file is damaged"
            raise _named(self._parts[part].filename, reason, first_line(error)) from error


class TfRecords(Records):
    """The records of tfrecord files.

    Such a file has no index: its records are searched once, hopping from length to length. It is a
    row of (uint64 length, uint32 checksum of it, data, uint32 checksum), little-endian.
    """

    def __init__(self, parts: Sequence[FileInstruction], bounds: Sequence[np.ndarray]):
        """The parts, and of each file what `find_bounds` returns."""
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
        # Not in one piece: cutting it would copy the data.
        data = os.pread(file, end - start - _FRAME, start + _LENGTH.size)
        rest = os.pread(file, _CHECKSUM.size, end - _CHECKSUM.size)
        filename = self._parts[part].filename
        if len(data) + len(rest) != end - start - _LENGTH.size:
            raise _named(filename, "has changed or is cut off", f"at record {row}")
        if _CHECKSUM.unpack(rest)[0] != _masked_crc32c(data):
            raise _named(filename, f"record {row} of the file is damaged", "wrong checksum")
        return data


def find_bounds(filename: str, expected: int) -> np.ndarray:
    """Where the records of a tfrecord file start, and where the last one ends.

    Returns:
      (expected + 1,) int64: bytes from the start of the file.

    Raises:
      OSError: the file is missing, damaged, cut off, or has another number of records.
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
        raise _named(filename, "is cut off", f"{size} bytes, and its records have {bounds[-1]}")
    _require_number(filename, len(bounds) - 1, expected)
    return np.array(bounds, np.int64)


def open_records(
    info: tfds.core.SplitInfo, file_format: str, bounds_of: Callable[[str, int], np.ndarray]
) -> Records:
    """The records of a split, or of a part of one, in their order; threads may share them.

    Args:
      info: ``builder.info.splits[split]``.
      file_format: "array_record" or "tfrecord".
      bounds_of: takes a tfrecord file's name and its number of records; `find_bounds`, or what
        remembers it.

    Raises:
      OSError: a file is missing, empty or cut off.
      ValueError: another format.
    """
    parts = info.file_instructions
    require_files(part.filename for part in parts)
    open_files.allow(len(parts))
    if (kept := open_files.capacity()) < len(parts):
        notice.tell_once(
            f"{Path(parts[0].filename).parent} has {len(parts)} files of records, and {kept} of "
            "them stay open at a time, which makes reading slower: raise the limit of open files "
            "(ulimit -n)"
        )
    if file_format == "array_record":
        return ArrayRecords(parts)
    if file_format == "tfrecord":
        with ThreadPoolExecutor(8) as pool:  # each mostly waits for the disk
            bounds = list(pool.map(lambda p: bounds_of(p.filename, p.examples_in_shard), parts))
        return TfRecords(parts, bounds)
    raise ValueError(
        f"{Path(parts[0].filename).parent} is stored as {file_format}, and array_record and "
        "tfrecord can be read: prepare the data set in one of these"
    )


def require_files(filenames: Iterable[str]) -> None:
    """Checks that files of records are there, and not empty.

    Raises:
      OSError: one is not; names it.
    """
    for filename in filenames:
        if not os.path.isfile(filename):
            raise FileNotFoundError(f"{filename} is missing: copy the data set again")
        if not os.path.getsize(filename):
            raise OSError(f"{filename} is empty: copy the data set again")


def _example(record: bytes) -> Any:
    # The module makes its classes when it is imported.
    return vars(tf_example_pb2)["Example"].FromString(record)


def image_and_label(record: bytes, label: str = "label") -> tuple[bytes, int]:
    """The encoded image and the label of a record, a serialised tf.train.Example.

    Args:
      record: its bytes.
      label: what the feature of the label is called.

    Raises:
      OSError: the record is none, or lacks one of them.
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
    """All labels of a record whose image may have several, or none.

    Raises:
      OSError: the record is none, or has no such feature.
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
    """Sets of labels as (n, longest) int32, each label once, filled up with -1."""
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
    """Why it could not be opened."""
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
    """Of its message, or its name where it has none."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def _masked_crc32c(data: bytes) -> int:
    """As tfrecord has it: rotated, and shifted by a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
