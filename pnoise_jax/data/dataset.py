"""One split of a data set, with random access to its images, labels and classes."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pnoise_jax.data.image import images
from pnoise_jax.data.image.conversion import ChannelsError
from pnoise_jax.data.image.images import Image, ImageError
from pnoise_jax.data.image.transforms import Transform


class _UnreadableError(OSError):
    """An image cannot be read; the message already names it."""


def unreadable(image: str, error: Exception) -> OSError:
    """The error for an image that cannot be read; `image` describes which one."""
    return _UnreadableError(
        f"{image} cannot be read ({error}): prepare the data set again, or copy it again"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, with random access: `dataset[i]`, `len(dataset)`.

    Attributes:
      name: the data set, as passed to `load`.
      split: the split, a TFDS expression such as `train` or `train[:300]`.
      num_classes: labels are 0..num_classes-1.
      image_shape: (height, width, channels); None if the images differ in size.
      labels: (n,) int32, the labels of all examples; available without reading any image.
      images: an indexable of n images: uint8 arrays of shape `image_shape` or, if the images
        differ in size, encoded files: bytes for three channels, else `Encoded`.
      class_names: the names of classes 0, 1, …; None if unknown.
      channels: the number of channels of a decoded image, as in `image_shape`.
      version: the version of the data set, such as "1.0.0"; None if it has none.
      parts: the whole splits that the split is composed of, with the indices taken from each.
      label_sets: (n, k) int32, all correct labels of each image, padded with -1, if images can
        have several; `labels` then contains the original label. None if each image has one label.
      occurring: the labels that occur in the whole splits, however small a part was taken; None
        if not determined.
      outputs: the indices of the model outputs that are the classes of this data set, in the order
        of its labels; None if all outputs are.
      notes: sentences about examples that were left out.
      stored_order: the order of the examples: "hashed", by a hash of their names, as TFDS shuffles
        them; "listed", as in a published list or as their owner stores them; None if unknown.
      content: an identifier that distinguishes data sets with the same name and version but
        different files; None if nothing was recorded about the files, or the version suffices.
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
    label_sets: np.ndarray | None = dataclasses.field(default=None, repr=False)
    occurring: np.ndarray | None = dataclasses.field(default=None, repr=False)
    outputs: tuple[int, ...] | None = dataclasses.field(default=None, repr=False)
    notes: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    stored_order: Literal["hashed", "listed"] | None = dataclasses.field(default=None, repr=False)
    content: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        if self.image_shape is not None:
            object.__setattr__(self, "channels", self.image_shape[2])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Example i: {"image": uint8 (height, width, channels), "label": int}.

        Raises:
          IndexError: i is out of range.
          OSError: the image cannot be read or decoded; names it.
        """
        return {"image": self.image(i, decode), "label": int(self.labels[i])}

    def image(
        self, i: int, transform: Transform, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """Image i, transformed.

        Raises:
          IndexError: i is out of range.
          OSError: the image cannot be read or decoded; names it.
          ValueError: the transform does not fit the image; names it.
        """
        try:
            return transform(self.images[i], generator)
        except _UnreadableError:
            raise  # a data set that this one was `transformed` from has named the image
        except (OSError, ImageError) as error:
            raise unreadable(self._name_of(i), error) from error
        except ChannelsError as error:
            shape = self.image_shape or (None, None, self.channels)
            raise ValueError(
                f"{self._name_of(i)}: {error}, but the data set declares images of shape {shape}: "
                "correct the shape in its features.json, or prepare it from files of that shape"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self._name_of(i)}: {error}") from error

    def _name_of(self, i: int) -> str:
        return f"image {i} of {self.name}'s split {self.split!r}"

    def require_image_shape(self) -> tuple[int, int, int]:
        """Returns `image_shape`.

        Raises:
          ValueError: the images differ in size.
        """
        if self.image_shape is None:
            raise ValueError(f"the images of {self.name} differ in size: decode them to one size")
        return self.image_shape

    @property
    def stored_images(self) -> Sequence[Image] | np.ndarray:
        """The images as they are stored, before the transform of `transformed`."""
        return self.images.stored if isinstance(self.images, _Transformed) else self.images

    def relabelled(self, order: np.ndarray, class_names: Sequence[str]) -> "Dataset":
        """The data set with its classes renumbered.

        Args:
          order: (num_classes,), the new label of each class.
          class_names: the class names in the new order.
        """
        order = order.astype(np.int32)
        occurring = None if self.occurring is None else np.sort(order[self.occurring])
        return dataclasses.replace(
            self,
            labels=read_only(order[self.labels]),
            label_sets=_renumbered(self.label_sets, order),
            occurring=occurring,
            class_names=tuple(class_names),
        )

    def restricted(self) -> "Dataset":
        """The data set restricted to the classes that occur in it, renumbered 0, 1, ….

        A class is kept if it occurs anywhere in the whole split, not only in the part that was
        taken. `outputs` lists the outputs for these classes in a model trained on all of them.

        Raises:
          ValueError: it is not known which classes occur.
        """
        if self.occurring is None:
            raise ValueError(f"{self.name}: it is not known which classes occur in its split")
        order = np.full(self.num_classes, -1, np.int32)
        order[self.occurring] = np.arange(len(self.occurring))
        names = self.class_names
        return dataclasses.replace(
            self,
            num_classes=len(self.occurring),
            labels=read_only(order[self.labels]),
            label_sets=_renumbered(self.label_sets, order),
            occurring=np.arange(len(self.occurring)),
            class_names=None if names is None else tuple(names[i] for i in self.occurring),
            outputs=tuple(self.occurring.tolist()),
        )

    def targets(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The correct labels of some examples, to compare predictions with.

        Args:
          index: (b,), the examples; -1 for padding, which gets label 0.

        Returns:
          "label", int32 (b,), and, if images can have several labels, "label_set", int32 (b, k).
        """
        real = index >= 0
        targets = {"label": np.where(real, self.labels[index], np.int32(0))}
        if self.label_sets is not None:
            padding = np.full(self.label_sets.shape[1], -1, np.int32)
            padding[0] = 0
            targets["label_set"] = np.where(real[:, None], self.label_sets[index], padding)
        return targets

    def transformed(self, transform: Transform, image_shape: tuple[int, int, int]) -> "Dataset":
        """The data set with every image transformed when it is read.

        Args:
          transform: a deterministic transform, called as ``transform(image, None)``.
          image_shape: the shape of the arrays that it returns.
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


def select(dataset: Dataset, indices: np.ndarray) -> Dataset:
    """A data set of some of the examples; the classes keep their numbers.

    Args:
      dataset: n examples.
      indices: (m,), the examples of the new data set, in its order.
    """
    sets = dataset.label_sets
    return dataclasses.replace(
        dataset,
        labels=read_only(dataset.labels[indices]),
        label_sets=None if sets is None else read_only(sets[indices]),
        images=_Selected(dataset.images, indices),
    )


class _Selected(Sequence):
    """The selected images, indexed by their position in the selection."""

    def __init__(self, images: Sequence[Image] | np.ndarray, indices: np.ndarray):
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Image:
        return self._images[int(self._indices[i])]


def _renumbered(sets: np.ndarray | None, order: np.ndarray) -> np.ndarray | None:
    """Label sets, padded with -1, with every label replaced by `order[label]`."""
    return None if sets is None else read_only(np.where(sets < 0, -1, order[sets]))


def read_only(array: np.ndarray) -> np.ndarray:
    """Makes the array read-only, in place, and returns it."""
    # Examples are views: a transform that writes in place must not change the data set.
    array.flags.writeable = False
    return array
