"""Data sets by name, read by random access and without TensorFlow."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax.data import copies, imagenet_sets, in_memory, manifest
from pnoise_jax.data.builtin import embedded
from pnoise_jax.data.copies import Copy
from pnoise_jax.data.data_dir import resolve, set_with
from pnoise_jax.data.dataset import Dataset, decode, read_only, select, unreadable
from pnoise_jax.data.directory import (
    PreparedDirectory,
    copy_version,
    newest_version,
)
from pnoise_jax.data.image import images
from pnoise_jax.data.image.images import Encoded, Image, ImageError
from pnoise_jax.data.stored_images import Decoded, Files
from pnoise_jax.registry import did_you_mean

# What launch.prepare makes from files that their owners give out. Any other data set that TFDS has
# prepared is read as well.
PREPARED_BY_COMMAND = (
    "domainnet",
    "imagenet2012",
    "office_home",
    "tiny_imagenet",
    "visda2017",
    *imagenet_sets.FIXED_NAMES,
    imagenet_sets.PATTERN,
)


def list_datasets() -> list[str]:
    """The names that `load` knows by itself; it also reads whatever else TFDS has prepared."""
    return sorted([*embedded.BUILDERS, *PREPARED_BY_COMMAND, *in_memory.DATASETS])


def load(
    name: str, *, split: str, data_dir: str | os.PathLike | None = None, cache: bool = False
) -> Dataset:
    """Loads one split of a data set.

    The embedded data sets are prepared below `data_dir` if they are not there. Others are read
    where `launch.prepare`, or TFDS itself, has prepared them: in ``<data_dir>/<name>/<version>``,
    as array_record or tfrecord; of several versions the newest is taken.

    Args:
      name: one of `list_datasets()`, "folder/<name>" for what `launch.prepare` made of your own
        folders, one of your own (`register_dataset`, "module:function"), or any data set that
        has been prepared below `data_dir` and has "image" and "label".
      split: a TFDS split: `train`, `test`, `train[:300]`, `train[:10%]`, `train+test`.
      data_dir: where data sets are kept; the directory itself is made, its parents are not.
        Or a URL, gs://BUCKET/FOLDER, from which the files of the split are copied to the user's
        cache. None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      cache: read the whole split into memory now (read-only), decoded where all images have one
        shape, instead of reading at every access.

    Raises:
      ValueError: an unknown name, or a split that the data set does not have.
      FileNotFoundError: the directory that should hold `data_dir` does not exist, or the data set
        has not been prepared.
      OSError: `data_dir` is not a directory, cannot be written, or a bucket that cannot be read;
        or what it has as the prepared data set is not one.
    """
    if in_memory.DATASETS.knows(name):
        return _load_registered(name, split)
    directory = _prepared(name, data_dir)
    with directory.errors_named():
        return _read(directory, name, split, cache=cache)


def _read(directory: PreparedDirectory, name: str, split: str, *, cache: bool) -> Dataset:
    _require_convertible(directory, name)
    labels, encoded = directory.read(split)
    try:
        shape, channels = directory.image_shape, _channels(directory, encoded)
    except (OSError, ImageError) as error:
        raise unreadable(f"image 0 of {name}'s split {split!r}", error) from error
    if shape is not None:
        shape = (*shape[:2], channels)
        images_of_split: Any = Decoded(encoded, shape)
    else:
        declared = (*directory.declared_shape[:2], channels)
        images_of_split = encoded if declared == (None, None, 3) else Files(encoded, declared)
    parts = tuple(directory.parts(split))
    dataset = Dataset(
        name,
        split,
        directory.num_classes,
        shape,
        read_only(labels),
        images_of_split,
        class_names=directory.class_names,
        channels=channels,
        version=directory.path.name,
        parts=parts,
        label_sets=directory.label_sets(split),
        occurring=_occurring(directory, parts),
        stored_order="listed" if directory.is_listed else "hashed",
        content=None if name in embedded.BUILDERS else manifest.digest(directory.path),
    )
    if dataset.label_sets is not None:
        dataset = _with_labels_only(dataset)
    return dataclasses.replace(dataset, images=_cached(dataset)) if cache else dataset


def _occurring(directory: PreparedDirectory, parts: Sequence[tuple[str, slice]]) -> np.ndarray:
    """The labels of the whole splits that the parts are of, sets included."""
    found = []
    for whole in dict.fromkeys(whole for whole, _ in parts):
        found += [directory.labels(whole)]
        sets = directory.label_sets(whole)
        found += [] if sets is None else [sets[sets >= 0]]
    return np.unique(np.concatenate(found))


def _with_labels_only(dataset: Dataset) -> Dataset:
    """Without the images that have no label at all: no prediction of them is right or wrong."""
    assert dataset.label_sets is not None, "called with sets only"
    kept = np.flatnonzero((dataset.label_sets >= 0).any(axis=1))
    missing = len(dataset) - len(kept)
    if not missing:
        return dataset
    if not len(kept):
        raise ValueError(f"no image of {dataset.name}'s split {dataset.split!r} has a label")
    note = (
        f"{dataset.name}, {dataset.split}: {missing} images without a label are left out, "
        f"{len(kept)} count"
    )
    return dataclasses.replace(select(dataset, kept), notes=(*dataset.notes, note))


def is_prepared(name: str, data_dir: str | os.PathLike | None) -> bool:
    """Whether a data set stands below ``data_dir``, by `launch.prepare` or TFDS; reads no records.

    Raises:
      ValueError, OSError: as `load`, for a URL.
    """
    place = resolve(data_dir)
    if not _is_inside(name):
        return False
    if isinstance(place, str):
        return _copy(name, place, set_with(data_dir)) is not None
    return newest_version(place / name) is not None


def _is_inside(name: str) -> bool:
    """Whether this can be the name of a data set below a directory."""
    parts = Path(name).parts
    return 0 < len(parts) <= 3 and ".." not in parts and not Path(name).is_absolute()


def _copy(name: str, url: str, field: str) -> Copy | None:
    """The data set in a bucket: an embedded one in the version that is made here as well."""
    directory = copies.bucket_path(url, name, field=field)
    return copy_version(directory, embedded.embedded_version(name))


def _load_registered(name: str, split: str) -> Dataset:
    made = in_memory.make(name)
    where = f"data.name={name!r}"
    images, labels = made.read(split, where=where)
    return Dataset(
        name,
        split,
        made.num_classes,
        images.shape[1:],
        read_only(labels),
        read_only(images),
        class_names=None if made.class_names is None else tuple(made.class_names),
        version=made.version,
        content=made.version,
        parts=tuple(made.parts(split, where=where)),
        occurring=np.unique(
            np.concatenate([made.splits[whole][1] for whole, _ in made.parts(split, where=where)])
        ),
    )


def _require_convertible(directory: PreparedDirectory, name: str) -> None:
    """Raises ValueError where the images are none of 8 bits in two dimensions."""
    shape, dtype = directory.declared_shape, directory.image_dtype
    if len(shape) != 3 or dtype != np.uint8:
        raise ValueError(
            f"data.name={name!r} declares images of shape {shape} and dtype {dtype}, and only "
            "uint8 (height, width, channels) can be read: prepare the data set again with images "
            "of 8 bits, scaled as its samples need"
        )


def _channels(directory: PreparedDirectory, encoded: Sequence[bytes]) -> int:
    """As declared; where it is left open, as the first image has it, and all others must."""
    declared = directory.declared_shape[2]
    return declared or images.decode(Encoded(encoded[0], None)).shape[2]


def _cached(dataset: Dataset) -> Sequence[Image] | np.ndarray:
    """All images in memory: decoded where they have one shape."""
    if dataset.image_shape is None:
        return [dataset.images[i] for i in range(len(dataset))]
    cached = np.empty((len(dataset), *dataset.image_shape), np.uint8)
    for i in range(len(dataset)):
        cached[i] = dataset.image(i, decode)
    return read_only(cached)


def _prepared(name: str, data_dir: str | os.PathLike | None) -> PreparedDirectory:
    """The data set, prepared now where it is embedded and not there yet."""
    place = resolve(data_dir)
    if name in embedded.BUILDERS and isinstance(place, Path):
        return PreparedDirectory(embedded.prepared(name, place), name)
    inside = _is_inside(name)
    if inside and isinstance(place, str):
        copy = _copy(name, place, set_with(data_dir))
        if copy is not None:
            with copy.named():
                return PreparedDirectory(copy.path, name, copy=copy)
    elif inside:
        directory = newest_version(Path(place, name))
        if directory is not None:
            return PreparedDirectory(directory, name)
    raise _not_there(name, place, set_with(data_dir))


def _not_there(name: str, place: Path | str, field: str) -> Exception:
    where = f"data.name={name!r} is not prepared in {field}={str(place)!r}"
    if name in embedded.BUILDERS:
        return FileNotFoundError(
            f"{where}, in version {embedded.embedded_version(name)}. Give a directory as "
            "data.data_dir, and it is made there"
        )
    is_folder = _is_inside(name) and Path(name).parts[0] == "folder" and len(Path(name).parts) == 2
    official = (*PREPARED_BY_COMMAND, *imagenet_sets.CORRUPTED_NAMES)
    if name in official or is_folder:
        command = (
            f"python -m launch.prepare --dataset={name} --manual_dir=DIRECTORY_OF_THE_DOWNLOADS"
        )
        if isinstance(place, str):
            return FileNotFoundError(
                f"{where}. Prepare it in a directory: {command} --data_dir=DIRECTORY; and copy "
                f"that: gcloud storage cp -r 'DIRECTORY/*' {place.rstrip('/')}/"
            )
        return FileNotFoundError(
            f"{where}. Prepare it: {command} --data_dir={place}; or set data.data_dir to the "
            "directory that has it"
        )
    return ValueError(
        f"data.name={name!r} is unknown{suggest(name, list_datasets())}; "
        f"folder/NAME for your own images; and what TFDS has prepared in {place}."
    )


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name, with the variants of ImageNet-V2 and -C."""
    base = name.partition("/")[0]
    variants = [each for each in imagenet_sets.NAMES if each.startswith(f"{base}/")]
    return did_you_mean(name, variants or known)
