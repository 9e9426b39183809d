"""What stands beside the records: TFDS's metadata, labels, and how it all was prepared."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info, file_adapters, naming

from pnoise_jax.data.directory import newest_version
from pnoise_jax.data.prepare import records
from pnoise_jax.data.prepare.plan import Plan
from pnoise_jax.data.prepare.shards import FORMAT, Note, Shard

_PREPARATION = "preparation.json"


def template(directory: Path, name: str, split: str) -> naming.ShardedFileTemplate:
    """How TFDS names a split's files."""
    return naming.ShardedFileTemplate(
        data_dir=directory,
        dataset_name=name.partition("/")[0],
        split=split,
        filetype_suffix=file_adapters.FileFormat.ARRAY_RECORD.value,
    )


def write_metadata(
    directory: Path,
    plan: Plan,
    shards: Mapping[str, Sequence[Shard]],
    notes: Mapping[Path, Note],
    *,
    short_side: int | None,
) -> None:
    """Makes a directory of finished shards, by split, one that TFDS reads."""
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
        features=records.features(plan),
        supervised_keys=("image", "label"),
        homepage=plan.homepage,
    )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    info.set_splits(
        tfds.core.splits.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[len(shard.entries) for shard in its_shards],
                    num_bytes=sum(notes[shard.path].num_bytes for shard in its_shards),
                    filename_template=template(directory, plan.name, split),
                )
                for split, its_shards in shards.items()
            ]
        )
    )
    info.write_to_directory(directory)
    for split, its_shards in shards.items():
        labels = [entry.label for shard in its_shards for entry in shard.entries]
        np.save(directory / f"labels-{split}.npy", np.array(labels, np.int32))
    preparation = {"format": FORMAT, "short_side": short_side}
    (directory / _PREPARATION).write_text(json.dumps(preparation))


def find_prepared(
    data_dir: Path, name: str, version: str, *, short_side: int | None
) -> Path | None:
    """The directory in which the data set stands already, whole; it may be TFDS's own.

    Raises:
      OSError: what stands there is no data set.
      ValueError: it was prepared with other settings, or by another version of this package.
    """
    target = data_dir / name / version
    if target.exists() and not (target / "dataset_info.json").is_file():
        raise OSError(f"{target} is not a prepared data set: delete it, or use another --data_dir")
    found = newest_version(data_dir / name)
    if found is None:
        return None
    try:
        preparation = json.loads((found / _PREPARATION).read_text())
    except FileNotFoundError:  # TFDS has prepared it
        preparation = {"format": FORMAT, "short_side": None}
    if preparation.get("format") != FORMAT:
        raise ValueError(
            f"{found} was prepared by another version of this program (format "
            f"{preparation.get('format')}, and this one knows {FORMAT}): delete it, or use another "
            "--data_dir"
        )
    if preparation["short_side"] != short_side:
        raise ValueError(
            f"{found} was prepared {_with(preparation['short_side'])}, and now it should be "
            f"{_with(short_side)}: delete it, or use another --data_dir"
        )
    return found


def splits_of(directory: Path) -> dict[str, int]:
    """The splits of a prepared directory, and their numbers of examples."""
    splits = json.loads((directory / "dataset_info.json").read_text()).get("splits", [])
    return {s["name"]: sum(map(int, s.get("shardLengths", []))) for s in splits}


def _with(short_side: int | None) -> str:
    return "without --short_side" if short_side is None else f"with --short_side={short_side}"
