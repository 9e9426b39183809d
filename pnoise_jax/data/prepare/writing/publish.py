"""The files next to the records: TFDS's metadata, the labels, and how they were prepared."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info, file_adapters
from tensorflow_datasets.core.splits import SplitDict

from pnoise_jax.data.prepare.plan import Plan
from pnoise_jax.data.prepare.writing import tfds_layout
from pnoise_jax.data.prepare.writing.shards import Note, Shard
from pnoise_jax.data.stored import manifest, records
from pnoise_jax.data.stored.directory import newest_version


def write_metadata(
    directory: Path,
    plan: Plan,
    shards: Mapping[str, Sequence[Shard]],
    notes: Mapping[Path, Note],
    *,
    short_side: int | None,
) -> None:
    """Turns a directory of finished shards into one that TFDS can read."""
    _describe(directory, plan, shards, notes).write_to_directory(directory)
    for split, its_shards in shards.items():
        labels = [entry.label for shard in its_shards for entry in shard.entries]
        np.save(directory / f"labels-{split}.npy", np.array(labels, np.int32))
        if plan.has_label_sets:
            sets = [entry.label_set or () for shard in its_shards for entry in shard.entries]
            np.save(directory / f"label_sets-{split}.npy", records.padded(sets))
    written = {shard.path for its_shards in shards.values() for shard in its_shards}
    checksums = {path.name: notes[path].file for path in written}
    settings = {
        "short_side": short_side,
        "class_order": plan.class_order,
        "order": plan.order,
        "layout": plan.layout,
        "notes": list(plan.notes),
    }
    manifest.write(directory, settings, known=checksums)
    for path in (*sorted(set(directory.iterdir()) - written), directory):
        sync(path)  # the shards are already on the disk


def _describe(
    directory: Path, plan: Plan, shards: Mapping[str, Sequence[Shard]], notes: Mapping[Path, Note]
) -> tfds.core.DatasetInfo:
    """The description of the data set for TFDS."""
    name, _, config = plan.name.partition("/")
    identity = dataset_info.DatasetIdentity(
        name=name,
        config_name=config or None,
        version=tfds.core.Version(plan.version),
        data_dir=os.fspath(directory),
        module_name="",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=plan.description,
        features=tfds_layout.features(plan),
        supervised_keys=("image", records.LABEL_SET if plan.has_label_sets else "label"),
        homepage=plan.homepage,
        disable_shuffling=plan.order == "listed",
    )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    info.set_splits(
        SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[len(shard.entries) for shard in its_shards],
                    num_bytes=sum(notes[shard.path].num_bytes for shard in its_shards),
                    filename_template=tfds_layout.template(directory, plan.name, split),
                )
                for split, its_shards in shards.items()
            ]
        )
    )
    return info


def sync(path: Path) -> None:
    """Waits until a file, or the list of files in a directory, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_prepared(
    data_dir: Path,
    name: str,
    version: str,
    *,
    short_side: int | None,
    layout: str | None = None,
) -> Path | None:
    """The directory that already has the complete data set, possibly made by TFDS; else None.

    Raises:
      OSError: the directory contains something else, or cannot be written.
      ValueError: it was prepared with other settings, or by another version of this package.
    """
    target = data_dir / name / version
    if target.exists() and not (target / "dataset_info.json").is_file():
        raise OSError(f"{target} is not a prepared data set: delete it, or use another --data_dir")
    directory = newest_version(data_dir / name)
    if directory is None:
        _require_place(data_dir, target)
        return None
    prepared = manifest.read(directory)
    old_short_side, old_layout = prepared.short_side, prepared.layout
    if old_short_side != short_side:
        raise ValueError(
            f"{directory} was prepared {_with(old_short_side)}, but is requested "
            f"{_with(short_side)}: delete it, or use another --data_dir"
        )
    if None not in (layout, old_layout) and layout != old_layout:
        raise ValueError(
            f"{directory} was prepared with --layout={old_layout}, but is requested with "
            f"--layout={layout}: delete it, or use another --data_dir"
        )
    return directory


def class_names_of(directory: Path) -> list[str]:
    """The names of the classes of a prepared directory, by label; [] if they have no names."""
    for label in ("label", records.ORIGINAL_LABEL):
        file = directory / f"{label}.labels.txt"
        if file.exists():
            return file.read_text("utf-8").rstrip("\n").split("\n")
    return []


def splits_of(directory: Path) -> dict[str, int]:
    """The splits of a prepared directory, and their numbers of examples."""
    splits = json.loads((directory / "dataset_info.json").read_text()).get("splits", [])
    return {s["name"]: sum(map(int, s.get("shardLengths", []))) for s in splits}


def _require_place(data_dir: Path, target: Path) -> None:
    """Raises OSError if `target` could not be made, before hours are spent on its content."""
    for path in reversed(target.relative_to(data_dir).parents):
        path = data_dir / path
        if path == data_dir or not path.exists():
            continue
        if not path.is_dir():
            raise NotADirectoryError(
                f"{path} is a file, but {target} must be created: move it away, or use another "
                "--data_dir"
            )
        if not os.access(path, os.W_OK):
            raise PermissionError(
                f"{path} cannot be written, but {target} must be created: make it writable, or use "
                "another --data_dir"
            )


def _with(short_side: int | None) -> str:
    return "without --short_side" if short_side is None else f"with --short_side={short_side}"
