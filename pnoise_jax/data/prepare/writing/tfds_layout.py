"""The layout of a data set in TFDS: order, shards and records, known before any is written."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer, file_adapters, hashing, naming
from tensorflow_datasets.core.utils import shard_utils

from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan
from pnoise_jax.data.prepare.sources.sources import Read
from pnoise_jax.data.prepare.writing.shards import Shard, digest
from pnoise_jax.data.prepare.writing.treatment import treat
from pnoise_jax.data.stored.records import LABEL_SET, ORIGINAL_LABEL
from pnoise_jax.terminal import printable

# Of a shard. In readers other than this package's, TFDS's among them, the time to read one record
# of an array_record file grows with the number of its records: 0.12 ms if there are 100 000.
_MOST_RECORDS = 10_000


def lay_out(
    split: SplitPlan, plan: Plan, directory: Path, *, short_side: int | None
) -> list[Shard]:
    """The shards of a split, in the plan's order, by `shard_bounds` of the original images.

    Shrinking and converting do not change their number, which depends only on the sources. Only
    images that are to be repaired are read, because their sizes change.

    Args:
      split: a split of the plan.
      plan: the plan of the data set.
      directory: the directory of the records; notes are kept next to it.
      short_side: see `prepare`.

    Raises:
      ValueError: two entries have the same key.
    """
    hashed = in_order(split.entries, split.name)
    ordered = hashed if plan.order == "hashed" else list(split.entries)
    sizes = _record_sizes(ordered, split, plan)
    bounds = shard_bounds(sizes)
    files = template(directory, plan.name, split.name)
    settings = (plan.name, list(plan.class_names), split.source.stamp, short_side)
    shards = []
    for i, (first, end) in enumerate(bounds):
        path = Path(files.sharded_filepath(shard_index=i, num_shards=len(bounds)))
        entries = ordered[first:end]
        shards.append(
            Shard(
                path=path,
                note_path=directory.parent / "notes" / f"{path.name}.json",
                entries=entries,
                digest=digest(entries, *settings),
                expected_bytes=file_size(sizes[first:end]),
            )
        )
    return shards


def _record_sizes(entries: Sequence[Entry], split: SplitPlan, plan: Plan) -> list[int]:
    """Sizes of the records in bytes, for images that keep their bytes or are repaired."""
    with split.source.open() as read:
        return [
            record_size(
                entry,
                _repaired_size(entry, read)
                if plan.rule(entry.key) == "repair"
                else entry.member.size,
            )
            for entry in entries
        ]


def _repaired_size(entry: Entry, read: Read) -> int:
    try:
        return len(treat(read(entry.member), rule="repair").data)
    except (OSError, ValueError):
        return entry.member.size  # it is refused, and named, when its shard is written


def template(directory: Path, name: str, split: str) -> naming.ShardedFileTemplate:
    """The template by which TFDS names the files of a split."""
    return naming.ShardedFileTemplate(
        data_dir=epath.Path(directory),
        dataset_name=name.partition("/")[0],
        split=split,
        filetype_suffix=file_adapters.FileFormat.ARRAY_RECORD.value,
    )


def in_order(entries: Sequence[Entry], split: str) -> list[Entry]:
    """Entries in the order of TFDS: by the hash of their key, salted with the split's name.

    Raises:
      ValueError: two entries have the same key.
    """
    hasher = hashing.Hasher(split)
    hashed = sorted(
        (hasher.hash_key(entry.hash_key or entry.key), i) for i, entry in enumerate(entries)
    )
    for (one, i), (other, j) in itertools.pairwise(hashed):
        if one == other:
            raise ValueError(
                f"two images of split {split!r} are called {entries[i].key!r}: "
                f"{printable(entries[i].member.path)} and {printable(entries[j].member.path)}; "
                "leave one out"
            )
    return [entries[i] for _, i in hashed]


def shard_bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Which records, (first, end), go into each shard.

    This is TFDS's rule, a function of the number and the total size of the records, except that no
    shard has more than 10 000; TFDS would put a million small ones into one file.

    Args:
      sizes: sizes of the records in bytes.
    """
    number = shard_utils.ShardConfig().get_number_shards(sum(sizes), len(sizes))
    number = max(number, -(-len(sizes) // _MOST_RECORDS))
    ends = shard_utils.get_shard_boundaries(len(sizes), number)
    return list(zip([0, *ends[:-1]], ends, strict=True))


def features(plan: Plan) -> tfds.features.FeaturesDict:
    """The features as in TFDS: image (height, width, 3), label, file_name.

    If images have several labels, there are original_label and real_label instead of label, as in
    imagenet2012_real.
    """
    encoding = "jpeg" if plan.jpeg_only else None
    image = tfds.features.Image(shape=plan.image_shape, encoding_format=encoding)
    described: dict[str, Any] = {"image": image}
    label = tfds.features.ClassLabel(names=plan.class_names)
    if plan.has_label_sets:
        several = tfds.features.Sequence(tfds.features.ClassLabel(names=plan.class_names))
        described |= {ORIGINAL_LABEL: label, LABEL_SET: several}
    else:
        described["label"] = label
    return tfds.features.FeaturesDict(described | {"file_name": tfds.features.Text()})


def serializer(
    described: tfds.features.FeaturesDict,
) -> Callable[[Entry, bytes], bytes]:
    """A function that turns an entry and its image into a record.

    It is TFDS's serializer, but with sorted fields: protocol buffers do not define their order, and
    that of TFDS differs from process to process.
    """
    info: Any = described.get_serialized_info()  # a tree, contrary to its annotation
    serialize = example_serializer.ExampleSerializer(info)

    def record(entry: Entry, image: bytes) -> bytes:
        values = {"image": image, "file_name": entry.key}
        if entry.label_set is None:
            values |= {"label": entry.label}
        else:
            values |= {ORIGINAL_LABEL: entry.label, LABEL_SET: list(entry.label_set)}
        example = described.encode_example(values)
        return serialize.get_tf_example(example).SerializeToString(deterministic=True)

    return record


def record_size(entry: Entry, image_size: int) -> int:
    """Bytes of the record of an entry with an image of `image_size` bytes, without making it."""
    values = [
        ("image", _field(_field(image_size))),  # a list of one value, in a feature
        ("file_name", _field(_field(len(entry.key.encode())))),
        ("label" if entry.label_set is None else ORIGINAL_LABEL, _labels_size([entry.label])),
    ]
    if entry.label_set is not None:
        values.append((LABEL_SET, _labels_size(entry.label_set)))
    return _field(sum(_field(_field(len(name)) + _field(size)) for name, size in values))


def file_size(sizes: Sequence[int]) -> int:
    """About the bytes of an array_record file of records of these sizes: measured, rounded up."""
    return sum(sizes) + 128 * len(sizes) + (128 << 10)


def _labels_size(labels: Sequence[int]) -> int:
    """Bytes of a feature that contains class numbers; an empty list takes none."""
    return _field(_field(sum(map(_varint, labels))) if labels else 0)


def _field(size: int) -> int:
    """Bytes of a message's field of `size` bytes: a tag, the length, the bytes."""
    return 1 + _varint(size) + size


def _varint(value: int) -> int:
    return max(1, -(-value.bit_length() // 7))
