"""Decodes, crops and resizes images on the host.

All functions release the interpreter lock while they work, so threads run in parallel. EXIF
orientation is ignored, as in TFDS, tf.image and torchvision's ImageFolder.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import simplejpeg

from pnoise_jax.data.image import conversion
from pnoise_jax.data.image.headers import ImageError as ImageError
from pnoise_jax.data.image.headers import jpeg_header, png_header, with_height


class Encoded(NamedTuple):
    """An encoded image file, and the number of channels to decode it with.

    Attributes:
      data: the bytes of the file.
      channels: 1 (gray), 2 (gray and opacity), 3 (RGB) or 4 (RGBA); None: as in the file.
    """

    data: bytes
    channels: int | None


Image = bytes | Encoded | np.ndarray
"""An encoded file (JPEG, PNG, ...), decoded as RGB if given as bytes; or uint8 pixels (height,
width, channels)."""

Box = tuple[int, int, int, int]
"""(top, left, height, width), pixels."""

# Of thin images that become larger than this when resized, only the part needed is computed.
_THIN = 16  # ratio of the sides
_MOST_RESIZED = 1 << 24  # pixels, 50 MB of RGB

INTERPOLATIONS = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}


# How simplejpeg decodes (components of the file, wanted channels); Pillow decodes everything else.
_COLOURS = {(1, 1): "GRAY", (1, None): "GRAY", (1, 3): "RGB", (3, 3): "RGB", (3, None): "RGB"}

# The pipeline parallelises with threads; OpenCV's threads would compete with them for the cores.
cv2.setNumThreads(0)


def image_size(image: Image) -> tuple[int, int]:
    """The (height, width) of an image; an encoded image is not decoded, only its header is read.

    Raises:
      ImageError: the bytes are not an image, or the image is too large.
    """
    if isinstance(image, np.ndarray):
        return _checked(image).shape[:2]
    data, _ = _encoded(image)
    header = jpeg_header(data) or png_header(data)
    if header is not None:
        return header.height, header.width
    with conversion.opened(data) as opened:
        return opened.height, opened.width


def decode(image: Image) -> np.ndarray:
    """Decodes all pixels exactly as Pillow does: uint8 (height, width, channels); RGB for bytes.

    For three channels, gray, palettes and CMYK are converted to RGB, and opacity is dropped. For
    one channel, colour images are rejected unless all their pixels are gray. For four channels, the
    image must have opacity. Of 16-bit samples, the upper 8 bits are kept; if the file declares that
    fewer bits are used, the upper 8 of those. An array is returned as it is.

    Raises:
      ImageError: the bytes are not an image, are truncated, or contain an image that is too large
        or whose samples cannot be converted faithfully: floating-point, signed or 32-bit numbers.
      ChannelsError: the image does not have the channels of `Encoded`.
    """
    if isinstance(image, np.ndarray):
        return _checked(image)
    data, channels = _encoded(image)
    header = jpeg_header(data)
    colours = None if header is None else _COLOURS.get((header.components, channels))
    if colours is not None:
        try:
            return simplejpeg.decode_jpeg(data, colours)
        except ValueError:
            pass  # raised for mere warnings, too: Pillow decides whether the file is damaged
    return conversion.decode(data, channels)


def crop_and_resize(
    image: Image,
    box: Box | None,
    size: tuple[int, int],
    *,
    antialias: bool,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Crops a part of an image and resizes it.

    Args:
      image: bytes or pixels.
      box: the part to crop; None: the whole image.
      size: the (height, width) of the result.
      antialias: True, for evaluation: decoded exactly and resized by Pillow, like torchvision on
        PIL images, byte for byte. False, for training crops: decoded as fast as possible (with
        differences of a few grey levels) and resized by OpenCV. As in tf.image, that is without
        antialiasing, except where both sides shrink to half or less.
      interpolation: "bilinear" or "bicubic"; without antialias, only "bilinear".

    Returns:
      uint8 (height, width, channels). If nothing is resized, it may be a view of `image`.

    Raises:
      ImageError: the bytes cannot be decoded.
      ValueError: the box is not inside the image, or the interpolation needs antialias.
    """
    if antialias:
        return _resize_by_pillow(_crop(decode(image), box), size, INTERPOLATIONS[interpolation])
    if interpolation != "bilinear":
        raise ValueError(f"interpolation={interpolation!r} needs antialias=True")
    if isinstance(image, np.ndarray):
        return _resize_by_opencv(_crop(_checked(image), box), size)
    return _decode_and_resize(_encoded(image), box, size)


def resize_then_crop(
    image: Image, resized: tuple[int, int], box: Box, *, interpolation: str
) -> np.ndarray:
    """Resizes a whole image, as `crop_and_resize` with antialias, and crops a part of the result.

    Args:
      image: bytes or pixels.
      resized: the (height, width) that the whole image is resized to.
      box: the part to crop, in pixels of the resized image.
      interpolation: "bilinear" or "bicubic".

    Returns:
      uint8 (height, width, channels) of the box. For a long, thin image, which would have more than
      2**24 pixels when resized, only the box is computed. Pillow may then resize the axes in
      another order, and pixels at sharp edges may differ by some grey levels.

    Raises:
      ImageError, ValueError: as `crop_and_resize`.
    """
    pixels, mode = decode(image), INTERPOLATIONS[interpolation]
    if max(resized) <= _THIN * min(resized) or math.prod(resized) <= _MOST_RESIZED:
        return _crop(_resize_by_pillow(pixels, resized, mode), box)
    top, left, height, width = _inside(box, *resized)
    down, right = (have / want for have, want in zip(pixels.shape, resized, strict=False))
    part = (left * right, top * down, (left + width) * right, (top + height) * down)
    return _resize_by_pillow(pixels, (height, width), mode, part)


# Pixels


def _encoded(image: bytes | Encoded) -> Encoded:
    return image if isinstance(image, Encoded) else Encoded(image, 3)


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(
            f"the pixels of an image must be a uint8 array (height, width, channels); this one is "
            f"{pixels.dtype} {pixels.shape}"
        )
    return pixels


def _crop(pixels: np.ndarray, box: Box | None) -> np.ndarray:
    if box is None:
        return pixels
    top, left, height, width = _inside(box, *pixels.shape[:2])
    return pixels[top : top + height, left : left + width]


def _inside(box: Box, image_height: int, image_width: int) -> Box:
    top, left, height, width = box
    if not (0 <= top < top + height <= image_height and 0 <= left < left + width <= image_width):
        raise ValueError(
            f"box (top, left, height, width) = {box} is not inside the image of "
            f"{image_height} x {image_width} pixels"
        )
    return box


def _resize_by_opencv(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width, channels = pixels.shape
    if (height, width) == size:
        return pixels
    # Linear interpolation uses only two pixels per axis and skips the others.
    halved = height >= 2 * size[0] and width >= 2 * size[1]
    interpolation = cv2.INTER_AREA if halved else cv2.INTER_LINEAR
    # OpenCV supports at most four channels, and drops the axis of a single one.
    parts = [
        cv2.resize(pixels[..., first : first + 4], (size[1], size[0]), interpolation=interpolation)
        for first in range(0, channels, 4)
    ]
    return np.dstack(parts) if len(parts) > 1 else parts[0].reshape(*size, channels)


def _resize_by_pillow(
    pixels: np.ndarray,
    size: tuple[int, int],
    resample: PIL.Image.Resampling,
    part: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Resizes the whole image, or the part (left, top, right, bottom) of it."""
    if pixels.shape[:2] == size and part is None:
        return pixels
    width_and_height = (size[1], size[0])
    if pixels.shape[2] == 3:
        return np.asarray(PIL.Image.fromarray(pixels).resize(width_and_height, resample, box=part))
    # One by one: Pillow would interpret two channels as gray and opacity, and four as CMYK.
    planes = [
        PIL.Image.fromarray(pixels[..., channel]).resize(width_and_height, resample, box=part)
        for channel in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


# JPEG


def _decode_and_resize(image: Encoded, box: Box | None, size: tuple[int, int]) -> np.ndarray:
    """Crops and resizes fast: decodes at 1/2, 1/4 or 1/8 of the size if `size` is that small."""
    encoded, channels = image
    header = jpeg_header(encoded)
    colours = None if header is None else _COLOURS.get((header.components, channels))
    # A file without an end marker may be truncated, which the fast path would not detect.
    if header is None or colours is None or not encoded.endswith(b"\xff\xd9"):
        return _resize_by_opencv(_crop(decode(image), box), size)
    whole = (0, 0, header.height, header.width)
    top, left, height, width = _inside(box or whole, header.height, header.width)
    factor = _shrink_factor(height, width, size)
    rows = min(header.height, -(-(top + height) // 16) * 16)  # blocks have up to 16 rows
    try:
        pixels = simplejpeg.decode_jpeg(
            with_height(encoded, header, rows) if rows < header.height else encoded,
            colours,
            fastdct=True,
            fastupsample=True,
            min_height=-(-rows // factor),
            min_width=-(-header.width // factor),
            min_factor=factor,
            strict=False,
        )
    except ValueError:
        return _resize_by_opencv(_crop(decode(image), box), size)
    return _resize_part(pixels, (top, left, height, width), factor, size)


def _resize_part(pixels: np.ndarray, box: Box, factor: int, size: tuple[int, int]) -> np.ndarray:
    """Crops and resizes pixels that are smaller than the image of `box` by `factor`."""
    if all(side % factor == 0 for side in box):
        top, left, height, width = (side // factor for side in box)
        return _resize_by_opencv(_crop(pixels, (top, left, height, width)), size)
    top, left, height, width = (side / factor for side in box)
    # As _resize_by_opencv: if both sides shrink to half or less, average over several pixels.
    down, right = int(height // size[0]), int(width // size[1])
    if min(down, right) < 2:
        down = right = 1
    finer = (size[0] * down, size[1] * right)
    y_step, x_step = height / finer[0], width / finer[1]
    # The centre of pixel i of the result is (i + 1/2) steps from the edge of the box; the centre of
    # pixel j of the source is at j + 1/2.
    moves = np.array(
        [[x_step, 0, left + (x_step - 1) / 2], [0, y_step, top + (y_step - 1) / 2]], np.float64
    )
    resized = cv2.warpAffine(
        pixels,
        moves,
        finer[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _resize_by_opencv(resized.reshape(*finer, pixels.shape[2]), size)


def _shrink_factor(height: int, width: int, size: tuple[int, int]) -> int:
    """The largest factor by which a crop can shrink while decoded and not be below `size`."""
    return next((f for f in (8, 4, 2) if height >= f * size[0] and width >= f * size[1]), 1)
