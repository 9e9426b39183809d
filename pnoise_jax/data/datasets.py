"""Data sets by name, read by random access and without TensorFlow."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnoise_jax.data import in_memory
from pnoise_jax.data.builtin import embedded
from pnoise_jax.data.data_dir import resolve
from pnoise_jax.data.directory import PreparedDirectory, newest_version
from pnoise_jax.data.image import images
from pnoise_jax.data.image.conversion import ChannelsError
from pnoise_jax.data.image.images import Encoded, Image, ImageError
from pnoise_jax.data.image.transforms import Transform
from pnoise_jax.data.stored_images import Decoded, Files
from pnoise_jax.registry import did_you_mean

# What launch.prepare makes from files that their owners give out. Any other data set that TFDS has
# prepared is read as well.
PREPARED_BY_COMMAND = ("domainnet", "imagenet2012", "office_home", "tiny_imagenet", "visda2017")


class _UnreadableError(OSError):
    """An image that cannot be read, named."""


def _unreadable(image: str, error: Exception) -> _UnreadableError:
    return _UnreadableError(
        f"{image} cannot be read ({error}): prepare the data set again, or copy it again"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, by random access: `dataset[i]`, `len(dataset)`.

    Attributes:
      name: the data set, as given to `load`.
      split: the split, a TFDS expression such as `train` or `train[:300]`.
      num_classes: labels are 0..num_classes-1.
      image_shape: (height, width, channels); None where images differ in size.
      labels: (n,) int32, of all examples: no image is read for it.
      images: n images, anything that can be indexed: uint8 arrays of shape `image_shape`; encoded
        files where images differ in size, as bytes or, of other than three channels, as `Encoded`.
      class_names: of labels 0, 1, …; None where they are not known.
      channels: of the decoded images; `image_shape` has the same number.
      version: of the data set, as "1.0.0"; None where it has none.
      parts: the whole splits that the split joins, with the indices taken from each.
    """

    name: str
    split: str
    num_classes: int
    image_shape: tuple[int, int, int] | None
    labels: np.ndarray = dataclasses.field(repr=False)
    images: Sequence[Image] | np.ndarray = dataclasses.field(repr=False)
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
    channels: int = 3
    version: str | None = None
    parts: tuple[tuple[str, slice], ...] = dataclasses.field(default=(), repr=False)

    def __post_init__(self):
        if self.image_shape is not None:
            object.__setattr__(self, "channels", self.image_shape[2])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Example i: {"image": uint8 (height, width, channels), "label": int}.

        Raises:
          IndexError: beyond the end.
          OSError: the image cannot be read or decoded; names it.
        """
        return {"image": self.image(i, decode), "label": int(self.labels[i])}

    def image(
        self, i: int, transform: Transform, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """Image i, transformed.

        Raises:
          IndexError: beyond the end.
          OSError: the image cannot be read or decoded; names it.
          ValueError: the transform does not fit the image; names it.
        """
        try:
            return transform(self.images[i], generator)
        except _UnreadableError:
            raise  # `transformed` has named it
        except (OSError, ImageError) as error:
            raise _unreadable(self._name_of(i), error) from error
        except ChannelsError as error:
            shape = self.image_shape or (None, None, self.channels)
            raise ValueError(
                f"{self._name_of(i)}: {error}, and the data set declares images of shape {shape}: "
                "correct the shape in its features.json, or prepare it from files that agree"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self._name_of(i)}: {error}") from error

    def _name_of(self, i: int) -> str:
        return f"image {i} of {self.name}'s split {self.split!r}"

    def require_image_shape(self) -> tuple[int, int, int]:
        """`image_shape`, of images that all have one.

        Raises:
          ValueError: they differ in size.
        """
        if self.image_shape is None:
            raise ValueError(f"the images of {self.name} differ in size: decode them to one")
        return self.image_shape

    @property
    def stored_images(self) -> Sequence[Image] | np.ndarray:
        """The images as they are stored, without the transform of `transformed`."""
        return self.images.stored if isinstance(self.images, _Transformed) else self.images

    def relabelled(self, order: np.ndarray, class_names: Sequence[str]) -> "Dataset":
        """The data set with the classes numbered as elsewhere.

        Args:
          order: (num_classes,), the new number of each class.
          class_names: of the new numbers.
        """
        labels = _read_only(order[self.labels].astype(np.int32))
        return dataclasses.replace(self, labels=labels, class_names=tuple(class_names))

    def transformed(self, transform: Transform, image_shape: tuple[int, int, int]) -> "Dataset":
        """The data set with every image transformed when it is read.

        Args:
          transform: without randomness; it is called as ``transform(image, None)``.
          image_shape: of what it returns.
        """
        return dataclasses.replace(
            self, image_shape=image_shape, images=_Transformed(self, transform)
        )


def decode(image: Image, generator: np.random.Generator | None = None) -> np.ndarray:
    """The transform that only decodes."""
    del generator
    return images.decode(image)


class _Transformed(Sequence):
    """The images of a data set, transformed at every access."""

    def __init__(self, dataset: Dataset, transform: Transform):
        self._dataset, self._transform = dataset, transform

    @property
    def stored(self) -> Sequence[Image] | np.ndarray:
        """The images before the transform."""
        return self._dataset.images

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> np.ndarray:
        return self._dataset.image(i, self._transform)


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
        None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      cache: read the whole split into memory now (read-only), decoded where all images have one
        shape, instead of reading at every access.

    Raises:
      ValueError: an unknown name, or a split that the data set does not have.
      FileNotFoundError: the directory that should hold `data_dir` does not exist, or the data set
        has not been prepared.
      OSError: `data_dir` is not a directory, or cannot be written; or what it has as the
        prepared data set is not one.
    """
    if in_memory.DATASETS.knows(name):
        return _load_registered(name, split)
    directory = PreparedDirectory(_prepared(name, resolve(data_dir)), name)
    _require_convertible(directory, name)
    labels, encoded = directory.read(split)
    try:
        shape, channels = directory.image_shape, _channels(directory, encoded)
    except (OSError, ImageError) as error:
        raise _unreadable(f"image 0 of {name}'s split {split!r}", error) from error
    if shape is not None:
        shape = (*shape[:2], channels)
        images_of_split: Any = Decoded(encoded, shape)
    else:
        declared = (*directory.declared_shape[:2], channels)
        images_of_split = encoded if declared == (None, None, 3) else Files(encoded, declared)
    dataset = Dataset(
        name,
        split,
        directory.num_classes,
        shape,
        _read_only(labels),
        images_of_split,
        class_names=directory.class_names,
        channels=channels,
        version=directory.path.name,
        parts=tuple(directory.parts(split)),
    )
    return dataclasses.replace(dataset, images=_cached(dataset)) if cache else dataset


def _load_registered(name: str, split: str) -> Dataset:
    made = in_memory.make(name)
    where = f"data.name={name!r}"
    images, labels = made.read(split, where=where)
    return Dataset(
        name,
        split,
        made.num_classes,
        images.shape[1:],
        _read_only(labels),
        _read_only(images),
        class_names=None if made.class_names is None else tuple(made.class_names),
        version=made.version,
        parts=tuple(made.parts(split, where=where)),
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
    return _read_only(cached)


def _prepared(name: str, data_dir: Path) -> Path:
    """The directory of the data set, prepared now where it is embedded and not there yet."""
    if name in embedded.BUILDERS:
        return embedded.prepared(name, data_dir)
    parts = Path(name).parts
    inside = 0 < len(parts) <= 3 and ".." not in parts and not Path(name).is_absolute()
    directory = newest_version(data_dir / name) if inside else None
    if directory is not None:
        return directory
    if name in PREPARED_BY_COMMAND or (inside and parts[0] == "folder" and len(parts) == 2):
        raise FileNotFoundError(
            f"data.name={name!r} is not prepared in data.data_dir={str(data_dir)!r}. Prepare it: "
            f"python -m launch.prepare --dataset={name} --manual_dir=DIRECTORY_OF_THE_DOWNLOADS "
            f"--data_dir={data_dir}; or set data.data_dir to the directory that has it"
        )
    raise ValueError(
        f"data.name={name!r} is unknown{did_you_mean(name, list_datasets())}; "
        f"folder/NAME for your own images; and what TFDS has prepared in {data_dir}."
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    # Examples are views: a transform that writes in place must not change the data set.
    array.flags.writeable = False
    return array
