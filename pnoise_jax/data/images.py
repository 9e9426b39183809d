"""Encoded images to pixels: decoding, cropping and resizing on the host.

Everything here releases the interpreter lock while it works, so that threads run side by side.
EXIF orientation is ignored, as TFDS, tf.image and torchvision's ImageFolder ignore it.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import simplejpeg

Image = bytes | np.ndarray
"""An encoded file (JPEG, PNG, ...), or pixels: uint8 (height, width, channels)."""

Box = tuple[int, int, int, int]
"""(top, left, height, width), pixels."""

MAX_PIXELS = 178_956_970
"""The largest image that is decoded, as Pillow has it: beyond it, a small file may be a trap."""

_THIN = 16  # the long side / the short side beyond which resizing the whole costs too much

INTERPOLATIONS = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}


class ImageError(ValueError):
    """Bytes that are no image, are cut off, or are too large an image."""


# The pipeline's threads are the parallelism; OpenCV's own would fight with them over the cores.
cv2.setNumThreads(0)


def image_size(image: Image) -> tuple[int, int]:
    """(height, width); of an encoded image from its header, without decoding it.

    Raises:
      ImageError: bytes that are no image, or too large a one.
    """
    if isinstance(image, np.ndarray):
        return _checked(image).shape[:2]
    header = _jpeg_header(image)
    if header is not None:
        return header.height, header.width
    with _open(image) as opened:
        return opened.height, opened.width


def decode(image: Image) -> np.ndarray:
    """All pixels, exactly as Pillow gives them: uint8 (height, width, 3), RGB, of bytes.

    Gray, palette and CMYK become RGB, 16 bits become 8, transparency is dropped. An array comes
    back as it is, with its channels.

    Raises:
      ImageError: bytes that are no image, are cut off, or are too large an image.
    """
    if isinstance(image, np.ndarray):
        return _checked(image)
    header = _jpeg_header(image)
    if header is not None and header.components in (1, 3):
        try:
            return simplejpeg.decode_jpeg(image)
        except ValueError:
            pass  # a mere warning, too, raises: it is for Pillow to tell what is beyond repair
    return _decode_by_pillow(image)


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
    return _resize_by_opencv(_decode_crop(image, box, size), size)


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
        cv2.resize(pixels[..., first : first + 4], size[::-1], interpolation=interpolation)
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
    if pixels.shape[2] == 3:
        return np.asarray(PIL.Image.fromarray(pixels).resize(size[::-1], resample, box=part))
    # One by one: Pillow would take two channels for gray and opacity, and four for CMYK.
    planes = [
        PIL.Image.fromarray(pixels[..., channel]).resize(size[::-1], resample, box=part)
        for channel in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


# JPEG


class _JpegHeader(NamedTuple):
    """What a frame header says.

    Attributes:
      height, width: pixels.
      components: 1 (gray), 3 (YCbCr, RGB) or 4 (CMYK, YCCK).
      offset: where in the file the two bytes of the height stand.
    """

    height: int
    width: int
    components: int
    offset: int


def _jpeg_header(encoded: bytes) -> _JpegHeader | None:
    """The frame header of a JPEG; None: it is no JPEG, or an odd one.

    Raises:
      ImageError: an image larger than MAX_PIXELS.
    """
    if encoded[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 10 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            offset = position + 5
            height = int.from_bytes(encoded[offset : offset + 2])
            width = int.from_bytes(encoded[offset + 2 : offset + 4])
            if not height or not width:
                return None
            _require_decodable(height, width)
            return _JpegHeader(height, width, encoded[offset + 4], offset)
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4])
    return None


def _decode_crop(encoded: bytes, box: Box | None, size: tuple[int, int]) -> np.ndarray:
    """The crop's pixels, fast; at a half, a quarter or an eighth where `size` is that small."""
    header = _jpeg_header(encoded)
    # Without its end marker, a file may be cut off, which the fast way would not notice.
    if header is None or header.components not in (1, 3) or not encoded.endswith(b"\xff\xd9"):
        return _crop(decode(encoded), box)
    whole = (0, 0, header.height, header.width)
    top, left, height, width = _inside(box or whole, header.height, header.width)
    factor = _shrink_factor(height, width, size)
    rows = min(header.height, -(-(top + height) // 16) * 16)  # a block of pixels has up to 16 rows
    try:
        pixels = simplejpeg.decode_jpeg(
            _with_height(encoded, header, rows) if rows < header.height else encoded,
            fastdct=True,
            fastupsample=True,
            min_height=-(-rows // factor),
            min_width=-(-header.width // factor),
            min_factor=factor,
            strict=False,
        )
    except ValueError:
        return _crop(decode(encoded), box)
    return _crop(pixels, (top // factor, left // factor, height // factor, width // factor))


def _with_height(encoded: bytes, header: _JpegHeader, rows: int) -> bytearray:
    """The same file with fewer rows: the decoder stops where the crop ends.

    Rows are coded from top to bottom, so what remains is decoded as before. What follows is
    skipped, with a warning that only strict decoding minds.
    """
    changed = bytearray(encoded)
    changed[header.offset : header.offset + 2] = rows.to_bytes(2)
    return changed


def _shrink_factor(height: int, width: int, size: tuple[int, int]) -> int:
    """How far a crop may be shrunk while it is decoded and still be no smaller than `size`."""
    return next((f for f in (8, 4, 2) if height >= f * size[0] and width >= f * size[1]), 1)


# All else


def _decode_by_pillow(encoded: bytes) -> np.ndarray:
    with _open(encoded) as opened:
        try:
            return np.asarray(_to_rgb(opened))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ImageError(f"not a whole image: {error}") from error


def _open(encoded: bytes) -> PIL.Image.Image:
    try:
        opened = PIL.Image.open(io.BytesIO(encoded))
    except PIL.Image.DecompressionBombError as error:  # it knows as many pixels as MAX_PIXELS
        raise ImageError(f"the image is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        start = bytes(encoded[:8])
        raise ImageError(
            f"not an image that can be read: {len(encoded)} bytes that begin with {start!r} "
            f"({type(error).__name__})"
        ) from error
    _require_decodable(opened.height, opened.width)
    return opened


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would clip to 8
        gray = np.asarray(image).astype(np.int64) >> 8
        image = PIL.Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns
    return image.convert("RGB")


def _require_decodable(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"an image of {height} x {width} pixels is too large: {MAX_PIXELS} are read at most"
        )
