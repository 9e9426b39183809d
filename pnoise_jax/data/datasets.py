"""Loads data sets by name, with random access and without TensorFlow."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax.data import imagenet_sets, in_memory, official
from pnoise_jax.data.builtin import embedded
from pnoise_jax.data.dataset import Dataset, decode, read_only, select, unreadable
from pnoise_jax.data.image import images
from pnoise_jax.data.image.images import Encoded, Image, ImageError
from pnoise_jax.data.stored import copies, manifest
from pnoise_jax.data.stored.copies import Copy
from pnoise_jax.data.stored.data_dir import resolve, set_with
from pnoise_jax.data.stored.directory import PreparedDirectory, copy_version, newest_version
from pnoise_jax.data.stored.stored_images import Decoded, Files
from pnoise_jax.registry import did_you_mean


def list_datasets() -> list[str]:
    """The built-in and registered names; `load` also reads any other data set prepared by TFDS."""
    return sorted([*embedded.BUILDERS, *official.NAMES, *in_memory.DATASETS])


def load(
    name: str, *, split: str, data_dir: str | os.PathLike | None = None, cache: bool = False
) -> Dataset:
    """Loads one split of a data set.

    An embedded data set is prepared below `data_dir` if it is not there yet. Any other data set
    must have been prepared by `pnoise prepare` or by TFDS itself, as array_record or tfrecord, in
    ``<data_dir>/<name>/<version>``. If there are several versions, the newest is loaded.

    Args:
      name: one of `list_datasets()`; "folder/<name>" for a data set that `pnoise prepare` built
        from your own folders; your own data set (`register_dataset`, "module:function"); or any
        data set that is prepared below `data_dir` and has the features "image" and "label".
      split: a TFDS split: `train`, `test`, `train[:300]`, `train[:10%]`, `train+test`.
      data_dir: the directory that contains the data sets. It is created if necessary, but its
        parent must exist. Or a URL, gs://BUCKET/FOLDER: the files of the split are then copied to
        the user's cache. None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      cache: read the whole split into memory now (read-only), instead of reading at every access.
        The images are decoded if they all have the same shape.

    Raises:
      ValueError: the name is unknown, or the data set has no such split.
      FileNotFoundError: the parent of `data_dir` does not exist, or the data set has not been
        prepared.
      OSError: `data_dir` is not a directory or is not writable, the bucket cannot be read, or the
        directory of the data set is not a valid prepared data set.
    """
    _refuse_version(name)
    if in_memory.DATASETS.knows(name):
        return _load_registered(name, split)
    directory = _prepared(name, data_dir)
    with directory.errors_named():
        return _read(directory, name, split, cache=cache)


def load_parts(name: str, *, split: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """A split without its images and labels, to count examples that it shares with another one.

    Of a data set in a bucket, no records are copied. The labels are 0, and reading an image raises
    IndexError.

    Args:
      name, split, data_dir: as in `load`.

    Raises:
      ValueError, OSError: as `load`.
    """
    _refuse_version(name)
    if in_memory.DATASETS.knows(name):
        return _load_registered(name, split)
    directory = _prepared(name, data_dir)
    with directory.errors_named():
        parts = tuple(directory.parts(split))
        labels = np.zeros(sum(part.stop - part.start for _, part in parts), np.int32)
        return Dataset(
            name,
            split,
            directory.num_classes,
            None,
            read_only(labels),
            (),
            parts=parts,
            content=_content(directory, name),
        )


def _content(directory: PreparedDirectory, name: str) -> str | None:
    return None if name in embedded.BUILDERS else manifest.digest(directory.path)


def _refuse_version(name: str) -> None:
    """Raises ValueError if the name ends in a version, as TFDS allows, such as "digits:1.0.0"."""
    base, colon, version = name.partition(":")
    if colon and re.fullmatch(r"[0-9.*]+", version):
        raise ValueError(
            f"data.name={name!r}: the newest version in data.data_dir is read, and no other can be "
            f"chosen; set data.name={base!r}, and data.data_dir to a directory without newer ones"
        )


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
        content=_content(directory, name),
    )
    if dataset.label_sets is not None:
        dataset = _with_labels_only(dataset)
    return dataclasses.replace(dataset, images=_cached(dataset)) if cache else dataset


def _occurring(directory: PreparedDirectory, parts: Sequence[tuple[str, slice]]) -> np.ndarray:
    """The distinct labels, including those in label sets, of the whole splits behind `parts`."""
    labels = []
    for whole in dict.fromkeys(whole for whole, _ in parts):
        labels += [directory.labels(whole)]
        sets = directory.label_sets(whole)
        labels += [] if sets is None else [sets[sets >= 0]]
    return np.unique(np.concatenate(labels))


def _with_labels_only(dataset: Dataset) -> Dataset:
    """Drops images without any label: no prediction for them is right or wrong."""
    assert dataset.label_sets is not None, "only called for data sets with label sets"
    kept = np.flatnonzero((dataset.label_sets >= 0).any(axis=1))
    missing = len(dataset) - len(kept)
    if not missing:
        return dataset
    if not len(kept):
        raise ValueError(f"no image of {dataset.name}'s split {dataset.split!r} has a label")
    note = (
        f"{dataset.name}, {dataset.split}: {missing} images without a label are left out, "
        f"{len(kept)} remain"
    )
    return dataclasses.replace(select(dataset, kept), notes=(*dataset.notes, note))


def is_prepared(name: str, data_dir: str | os.PathLike | None) -> bool:
    """Whether a data set has been prepared below ``data_dir``; reads no records.

    Raises:
      ValueError, OSError: if ``data_dir`` is a URL, as in `load`.
    """
    place = resolve(data_dir)
    if not _is_inside(name):
        return False
    if isinstance(place, str):
        return _copy(name, place, set_with(data_dir)) is not None
    return newest_version(place / name) is not None


def _is_inside(name: str) -> bool:
    """Whether `name` is a relative path that stays inside the directory of the data sets."""
    parts = Path(name).parts
    return 0 < len(parts) <= 3 and ".." not in parts and not Path(name).is_absolute()


def _copy(name: str, url: str, field: str) -> Copy | None:
    """The data set in a bucket; an embedded one only in the version that this package prepares."""
    directory = copies.bucket_path(url, name, field=field)
    return copy_version(directory, embedded.embedded_version(name))


def _load_registered(name: str, split: str) -> Dataset:
    arrays = in_memory.make(name)
    where = f"data.name={name!r}"
    images, labels = arrays.read(split, where=where)
    return Dataset(
        name,
        split,
        arrays.num_classes,
        images.shape[1:],
        read_only(labels),
        read_only(images),
        class_names=None if arrays.class_names is None else tuple(arrays.class_names),
        version=arrays.version,
        content=arrays.version,
        parts=tuple(arrays.parts(split, where=where)),
        occurring=np.unique(
            np.concatenate(
                [arrays.splits[whole][1] for whole, _ in arrays.parts(split, where=where)]
            )
        ),
    )


def _require_convertible(directory: PreparedDirectory, name: str) -> None:
    """Raises ValueError unless the images are uint8 (height, width, channels)."""
    shape, dtype = directory.declared_shape, directory.image_dtype
    if len(shape) != 3 or dtype != np.uint8:
        raise ValueError(
            f"data.name={name!r} declares images of shape {shape} and dtype {dtype}, but only "
            "uint8 (height, width, channels) can be read: prepare the data set again with 8-bit "
            "images, rescaling the samples as needed"
        )


def _channels(directory: PreparedDirectory, encoded: Sequence[bytes]) -> int:
    """The declared number of channels; if left open, the first image's, which all must share."""
    declared = directory.declared_shape[2]
    return declared or images.decode(Encoded(encoded[0], None)).shape[2]


def _cached(dataset: Dataset) -> Sequence[Image] | np.ndarray:
    """All images in memory, decoded if they all have the same shape."""
    if dataset.image_shape is None:
        return [dataset.images[i] for i in range(len(dataset))]
    cached = np.empty((len(dataset), *dataset.image_shape), np.uint8)
    for i in range(len(dataset)):
        cached[i] = dataset.image(i, decode)
    return read_only(cached)


def _prepared(name: str, data_dir: str | os.PathLike | None) -> PreparedDirectory:
    """Opens a data set; an embedded one is prepared first if necessary."""
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
            f"{where}, in version {embedded.embedded_version(name)}. Set data.data_dir to a local "
            "directory, and it will be prepared there"
        )
    is_folder = _is_inside(name) and Path(name).parts[0] == "folder" and len(Path(name).parts) == 2
    if name in (*official.NAMES, *imagenet_sets.CORRUPTED_NAMES) or is_folder:
        command = f"pnoise prepare --dataset={name} --manual_dir=DIRECTORY_OF_THE_DOWNLOADS"
        if isinstance(place, str):
            return FileNotFoundError(
                f"{where}. Prepare it in a local directory: {command} --data_dir=DIRECTORY; then "
                f"copy it: gcloud storage cp -r 'DIRECTORY/*' {place.rstrip('/')}/"
            )
        return FileNotFoundError(
            f"{where}. Prepare it: {command} --data_dir={place}; or set data.data_dir to the "
            "directory that contains it"
        )
    return ValueError(
        f"data.name={name!r} is unknown{suggest(name, list_datasets())}; "
        f"folder/NAME for your own images; or any data set that TFDS has prepared in {place}."
    )


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name; suggests variants of ImageNet-V2 and -C, too."""
    base = name.partition("/")[0]
    variants = [each for each in imagenet_sets.NAMES if each.startswith(f"{base}/")]
    return did_you_mean(name, variants or known)
