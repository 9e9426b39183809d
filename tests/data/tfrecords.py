"""Prepared directories turned into tfrecord ones, which TFDS writes with TensorFlow only."""

import json
import struct
from collections.abc import Iterable
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorboardX.record_writer import masked_crc32c


def write(path: Path, records: Iterable[bytes]) -> None:
    """Writes a tfrecord file, with the checksums of another implementation."""
    with open(path, "wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", masked_crc32c(length)))
            file.write(record + struct.pack("<I", masked_crc32c(record)))


def convert(directory: Path) -> None:
    """Turns a directory of array_record files into one of tfrecord files, same records and order.

    As TFDS leaves it: without labels beside the records, and without preparation.json.
    """
    for split in tfds.builder_from_directory(directory).info.splits.values():
        for path in map(Path, split.filepaths):
            source = ArrayRecordDataSource(str(path))
            write(
                directory / path.name.replace("array_record", "tfrecord"),
                [source[i] for i in range(len(source))],
            )
            path.unlink()
    info = directory / "dataset_info.json"
    content = json.loads(info.read_text())
    content["fileFormat"] = "tfrecord"
    for split in content["splits"]:
        split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info.write_text(json.dumps(content))
    for path in [*directory.glob("labels-*.npy"), *directory.glob("preparation.json")]:
        path.unlink()
