"""Caffe's mean image, used by TVT to normalise images instead of a mean per channel."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class MeanImage:
    """An image that is subtracted from every image; the difference is not divided by a std.

    Two mean images are equal, and have the same hash, if their pixels are equal, so a mean image
    can be a static argument of jit.

    Attributes:
      pixels: (height, width, 3) float32, RGB, for pixels in [0, 1]; read-only.
      digest: the SHA-256 of the pixels, in hexadecimal.
    """

    pixels: np.ndarray = dataclasses.field(repr=False)
    digest: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeanImage) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def channel_means(self) -> tuple[float, ...]:
        """The mean of each channel, in [0, 1]; augmentations fill gaps with it."""
        return tuple(self.pixels.mean(axis=(0, 1), dtype=np.float64).tolist())

    def subtract(self, images: Any) -> Any:
        """Converts uint8 images (..., height, width, 3) to float32 ``image / 255 - mean``.

        Args:
          images: a NumPy or JAX array.

        Raises:
          ValueError: the images have another size.
        """
        if images.shape[-3:] != self.pixels.shape:
            raise ValueError(
                f"images of shape {images.shape[-3:]}, but the mean image is {self.pixels.shape}: "
                f"set image_size={self.pixels.shape[0]}, the size of the mean image"
            )
        return images.astype(np.float32) / 255 - self.pixels


PixelMean = tuple[float, ...] | MeanImage  # per channel, or per pixel


def load_mean_image(
    path: str | os.PathLike, *, size: tuple[int, int], field: str = "data.mean_image"
) -> MeanImage:
    """Loads Caffe's ``ilsvrc_2012_mean.npy``, which is not shipped with this package.

    The file contains the mean of ImageNet's training images in BGR, on the scale from 0 to 255
    (channel means 104.0, 116.7 and 122.7), or divided by 255. It applies only to images of the same
    size: TVT resizes or crops to 256 pixels first, and then subtracts.

    Args:
      path: the path of the file, a floating-point array (3, height, width).
      size: the (height, width) of the images that it will be subtracted from.
      field: the field that the user sets the path with, for error messages.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: it is not such a file; the message says how it differs, and how to fix it.
    """
    path = Path(path).expanduser()
    named = f"{field}={str(path)!r}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{named} does not exist: give the path of Caffe's ilsvrc_2012_mean.npy, which is not "
            f"shipped here, or set {field}=None to subtract data.mean"
        )
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{named} is not a NumPy array ({error}): copy it again") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{named} has several arrays (.npz): give the .npy of the mean image")
    _check(array, size, named)
    scale = 255 if array.max() > 1 else 1
    pixels = np.ascontiguousarray((array[::-1].transpose(1, 2, 0) / scale).astype(np.float32))
    pixels.flags.writeable = False
    return MeanImage(pixels, hashlib.sha256(pixels.tobytes()).hexdigest())


def _check(array: np.ndarray, size: tuple[int, int], named: str) -> None:
    wanted = (3, *size)
    if array.shape == (*size, 3):
        raise ValueError(
            f"{named} has shape {array.shape}, with the channels last, but Caffe's file has "
            f"{wanted}: save it with array.transpose(2, 0, 1), in BGR order"
        )
    if array.shape != wanted or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{named} is {array.dtype} {array.shape}, but images of {size[0]} x {size[1]} pixels "
            f"need floating-point {wanted}: Caffe's file is (3, 256, 256), for image_size=256"
        )
    # A mean of photographs on the scale from 0 to 255 has far larger values than 16.
    on_a_scale = array.max() <= 1 or 16 <= array.max() <= 255
    if not np.isfinite(array).all() or array.min() < 0 or not on_a_scale:
        raise ValueError(
            f"{named} has values from {array.min():.4g} to {array.max():.4g}, but pixels range "
            "from 0 to 255, or from 0 to 1: is it a mean image?"
        )
    blue, green, red = array.mean(axis=(1, 2))
    if blue > red:
        raise ValueError(
            f"{named} has the channel means {blue:.4g}, {green:.4g}, {red:.4g}, the largest first, "
            "as in RGB, but Caffe's file is BGR (104.0, 116.7, 122.7): save it with array[::-1]"
        )
