"""Encoded images to pixels: decoding, cropping and resizing on the host.

Everything here releases the interpreter lock while it works, so that threads run side by side.
EXIF orientation is ignored, as TFDS, tf.image and torchvision's ImageFolder ignore it.
"""

from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import simplejpeg

from pnoise_jax.data.image import conversion
from pnoise_jax.data.image.headers import ImageError as ImageError
from pnoise_jax.data.image.headers import jpeg_header, png_header, with_height


class Encoded(NamedTuple):
    """An encoded file that is decoded with a number of channels of its own.

    Attributes:
      data: the file.
      channels: 1 (gray), 2 (with opacity), 3 (RGB) or 4 (RGBA); None: as the file has them.
    """

    data: bytes
    channels: int | None


Image = bytes | Encoded | np.ndarray
"""An encoded file (JPEG, PNG, ...), RGB where it is bytes alone; or pixels: uint8 (height, width,
channels)."""

Box = tuple[int, int, int, int]
"""(top, left, height, width), pixels."""

_THIN = 16  # the long side / the short side beyond which resizing the whole costs too much

INTERPOLATIONS = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}


# How simplejpeg decodes (components of the file, wanted channels); all else is left to Pillow.
_COLOURS = {(1, 1): "GRAY", (1, None): "GRAY", (1, 3): "RGB", (3, 3): "RGB", (3, None): "RGB"}

# The pipeline's threads are the parallelism; OpenCV's own would fight with them over the cores.
cv2.setNumThreads(0)


def image_size(image: Image) -> tuple[int, int]:
    """(height, width); of an encoded image from its header, without decoding it.

    Raises:
      ImageError: bytes that are no image, or too large a one.
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
    """All pixels, exactly as Pillow gives them: uint8 (height, width, channels); bytes are RGB.

    To RGB, gray, palettes and CMYK are converted, and opacity is dropped. To one channel, gray is
    converted, and colours are refused unless they are all gray; four channels need an opacity. Of
    samples of 16 bits the upper 8 are kept, and of fewer where the file declares them. An array
    comes back as it is, with its channels.

    Raises:
      ImageError: bytes that are no image, are cut off, are too large an image, or have samples
        that cannot be converted faithfully: floating-point, signed or 32-bit numbers.
      ChannelsError: an image without the channels of `Encoded`.
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
            pass  # a mere warning, too, raises: it is for Pillow to tell what is beyond repair
    return conversion.decode(data, channels)


def crop_and_resize(
    image: Image,
    box: Box | None,
    size: tuple[int, int],
    *,
    antialias: bool,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """A part of an image, brought to a size.

    Args:
      image: bytes or pixels.
      box: the part; None: all.
      size: (height, width) that comes out.
      antialias: True, for evaluation: decoded exactly and resized by Pillow, as torchvision does
        on PIL images, byte for byte. False, for training crops: decoded as fast as possible
        (differences of a few grey levels) and resized by OpenCV; not antialiased, as in tf.image,
        but where both sides shrink to half or less.
      interpolation: "bilinear" or "bicubic"; without antialias only "bilinear".

    Returns:
      uint8 (height, width, channels). Where nothing is resized it may be a view of `image`.

    Raises:
      ImageError: bytes that cannot be decoded.
      ValueError: a box that is not inside the image.
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
    """A part of what `crop_and_resize` with antialias makes of the whole image.

    Args:
      image: bytes or pixels.
      resized: the (height, width) that the whole is resized to.
      box: the part of that.
      interpolation: "bilinear" or "bicubic".

    Returns:
      uint8 (height, width, channels) of the box. Of a long, thin image, which would become huge,
      only this part is computed; it may then differ by a grey level.

    Raises:
      ImageError, ValueError: as `crop_and_resize`.
    """
    pixels, mode = decode(image), INTERPOLATIONS[interpolation]
    if max(resized) <= _THIN * min(resized):
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
            f"an image of pixels must be a uint8 array (height, width, channels); this one is "
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
    # Linear interpolation looks at two pixels per side only, and skips the others.
    halved = height >= 2 * size[0] and width >= 2 * size[1]
    interpolation = cv2.INTER_AREA if halved else cv2.INTER_LINEAR
    # OpenCV takes four channels at most, and drops a single one's axis.
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
    """All, or the part (left, top, right, bottom), resized."""
    if pixels.shape[:2] == size and part is None:
        return pixels
    width_and_height = (size[1], size[0])
    if pixels.shape[2] == 3:
        return np.asarray(PIL.Image.fromarray(pixels).resize(width_and_height, resample, box=part))
    # One by one: Pillow would take two channels for gray and opacity, and four for CMYK.
    planes = [
        PIL.Image.fromarray(pixels[..., channel]).resize(width_and_height, resample, box=part)
        for channel in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


# JPEG


def _decode_and_resize(image: Encoded, box: Box | None, size: tuple[int, int]) -> np.ndarray:
    """A crop, fast; decoded at a half, a quarter or an eighth where `size` is that small."""
    encoded, channels = image
    header = jpeg_header(encoded)
    colours = None if header is None else _COLOURS.get((header.components, channels))
    # Without its end marker, a file may be cut off, which the fast way would not notice.
    if header is None or colours is None or not encoded.endswith(b"\xff\xd9"):
        return _resize_by_opencv(_crop(decode(image), box), size)
    whole = (0, 0, header.height, header.width)
    top, left, height, width = _inside(box or whole, header.height, header.width)
    factor = _shrink_factor(height, width, size)
    rows = min(header.height, -(-(top + height) // 16) * 16)  # a block of pixels has up to 16 rows
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
    """The box, in pixels of the image before `pixels` was made smaller by the factor, resized."""
    if all(side % factor == 0 for side in box):
        top, left, height, width = (side // factor for side in box)
        return _resize_by_opencv(_crop(pixels, (top, left, height, width)), size)
    top, left, height, width = (side / factor for side in box)
    # As _resize_by_opencv: where both sides shrink to half, means of as many pixels as are needed.
    down, right = int(height // size[0]), int(width // size[1])
    if min(down, right) < 2:
        down = right = 1
    finer = (size[0] * down, size[1] * right)
    y_step, x_step = height / finer[0], width / finer[1]
    # Pixel i of the result has its middle at (i + 1/2) steps from the edge of the box, and pixel j
    # of what is read at j + 1/2.
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
    """How far a crop may be shrunk while it is decoded and still be no smaller than `size`."""
    return next((f for f in (8, 4, 2) if height >= f * size[0] and width >= f * size[1]), 1)
