"""Converts images opened by Pillow to 8-bit pixels with the wanted channels, or rejects them."""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image

from pnoise_jax.data.image import headers
from pnoise_jax.data.image.headers import ImageError

# Formats that contain only pixels; EPS, for example, contains programs.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323  # TIFF tags
_WHITE_IS_ZERO = 0
_TOLD_APART = 14  # bits; for 15, the two ways of storing samples differ only by rounding
_BAND = 2**22  # pixels that are converted at a time

# Pillow warns about large images; `headers.MAX_BYTES` limits them here.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


class ChannelsError(ValueError):
    """An image that does not have the channels that its data set declares."""


@contextlib.contextmanager
def opened(encoded: bytes) -> Iterator[PIL.Image.Image]:
    """Opens an image, reading only its header.

    Raises:
      ImageError: the bytes are not an image in a supported format, or the image is too large.
    """
    if headers.png_header(encoded) is not None:
        encoded = headers.png_without_texts(encoded)
    try:
        image = PIL.Image.open(io.BytesIO(encoded), formats=_formats())
    except MemoryError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large: {error}") from error
    except Exception as error:  # decoders may raise anything for damaged files
        start = bytes(encoded[:8])
        raise ImageError(
            f"not an image that can be read: {len(encoded)} bytes, starting with {start!r} "
            f"({type(error).__name__})"
        ) from error
    with image:
        headers.require_decodable(image.height, image.width, bits_per_pixel=_bits_per_pixel(image))
        yield image


def decode(encoded: bytes, channels: int | None) -> np.ndarray:
    """Decodes to uint8 (height, width, channels); `images.decode` is the public function.

    Raises:
      ImageError: the image cannot be opened, is truncated, or its samples cannot be converted.
      ChannelsError: the image does not have these channels.
    """
    with opened(encoded) as image:
        try:
            _require_palette(image, encoded)
            image.load()
            pixels = _pixels(image, encoded, channels or own_channels(image))
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # as above
            raise ImageError(f"not a whole image: {error}") from error
        if pixels is None:
            raise ChannelsError(f"the file has {_described(image)}, not {channels}")
        return pixels


def _require_palette(image: PIL.Image.Image, encoded: bytes) -> None:
    """Raises ImageError if a PNG lacks its palette; Pillow would use grey levels instead."""
    is_indexed = image.format == "PNG" and image.mode == "P"
    if is_indexed and b"PLTE" not in encoded[: encoded.find(b"IDAT")]:
        raise ImageError("a damaged PNG: its palette is missing")


def _pixels(image: PIL.Image.Image, encoded: bytes, channels: int) -> np.ndarray | None:
    """The pixels (height, width, channels); None if the image does not have these channels."""
    to_eight_bits = _to_eight_bits(image, encoded)
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    for rows, band in _bands(image):  # converting all at once would take several times the memory
        part = _with_channels(to_eight_bits(band), channels)
        if part is None:
            return None
        pixels[rows] = part
    return pixels


def _bands(image: PIL.Image.Image) -> Iterator[tuple[slice, PIL.Image.Image]]:
    """Splits the image into bands of full width; yields the rows and the image of each."""
    height = max(1, _BAND // image.width)
    if height >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, height):
        bottom = min(image.height, top + height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def own_channels(image: PIL.Image.Image) -> int:
    """The number of channels of the file, as read by TFDS: 1, 3, or 4 with opacity."""
    if _has_opacity(image):
        return 4
    return 1 if image.mode in ("1", "L") or image.mode.startswith("I") else 3


def sample_bits(encoded: bytes) -> int:
    """The number of bits per sample of the file, from its header, but at least 8.

    Raises:
      ImageError: as `opened`.
    """
    png = headers.png_header(encoded)
    if png is not None:
        return max(8, png.bits)
    with opened(encoded) as image:
        is_wide = image.mode.startswith("I") or _ppm_white(image) > 255
        return 16 if is_wide else max(8, *_tiff_bits(image))


# Channels


def _has_opacity(image: PIL.Image.Image) -> bool:
    """Whether the image has opacity; a transparent level of a gray image is ignored, as in TFDS."""
    transparent = "transparency" in image.info and image.mode in ("P", "RGB")
    return transparent or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")


def _with_channels(image: PIL.Image.Image, channels: int) -> np.ndarray | None:
    """The pixels (height, width, channels); None if the image does not have these channels."""
    if image.mode in ("La", "RGBa"):  # premultiplied by the opacity
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if channels == 3:
        return np.asarray(_to_rgb(image))
    if channels == 1:
        return _gray(image)
    if channels == 4 and _has_opacity(image):
        return np.asarray(image if image.mode == "RGBA" else image.convert("RGBA"))
    if channels == 2 and image.mode == "LA":
        return np.asarray(image)
    return None


def _gray(image: PIL.Image.Image) -> np.ndarray | None:
    """The gray pixels (height, width, 1); None if the image has colours."""
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image if image.mode == "L" else image.convert("L"))[..., None]
    pixels = np.asarray(_to_rgb(image))  # a palette or RGB image may contain only gray
    is_gray = (pixels[..., :1] == pixels[..., 1:]).all()
    return np.ascontiguousarray(pixels[..., :1]) if is_gray else None


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # avoids a warning of Pillow
    return image if image.mode == "RGB" else image.convert("RGB")


def _described(image: PIL.Image.Image) -> str:
    names = {"1": "black and white", "L": "gray", "P": "a palette"}
    number = 2 if image.mode == "LA" else own_channels(image)
    opacity = " with opacity" if _has_opacity(image) else ""
    plural = "s" if number > 1 else ""
    return f"{number} channel{plural} ({names.get(image.mode, image.mode)}{opacity})"


# Samples


def _to_eight_bits(
    image: PIL.Image.Image, encoded: bytes
) -> Callable[[PIL.Image.Image], PIL.Image.Image]:
    """A function that converts the samples of a band to 8 bits, by keeping the upper 8.

    Raises:
      ImageError: the samples are of a type for which the file does not define black and white.
    """
    if image.mode == "F":
        raise ImageError(
            f"its pixels are floating-point numbers ({image.format}): store them as 8 or 16 bits"
        )
    is_wide = image.mode == "I"
    if is_wide and image.format not in ("PNG", "PPM"):  # there they are 16 bits
        bits = max(_tiff_bits(image)) if image.format == "TIFF" else 32
        raise ImageError(
            f"its pixels are {'signed ' if bits < 32 else ''}{bits}-bit numbers ({image.format}): "
            "store them as unsigned 8 or 16 bits"
        )
    if not is_wide and not image.mode.startswith("I;16"):
        return lambda part: part
    shift = _declared_bits(image, encoded) - 8
    # Pillow respects this tag only for 8 bits.
    inverted = _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO

    def upper(part: PIL.Image.Image) -> PIL.Image.Image:
        gray = (np.asarray(part) >> shift).astype(np.uint8)
        return PIL.Image.fromarray(255 - gray if inverted else gray)

    return upper


def _declared_bits(image: PIL.Image.Image, encoded: bytes) -> int:
    """The number of bits that the samples use: 16, unless the file declares fewer."""
    if image.format == "TIFF":
        return max(8, *_tiff_bits(image))
    bits = headers.png_significant_bits(encoded) if image.format == "PNG" else None
    if bits is None or not 8 <= bits <= _TOLD_APART:
        return 16
    occurs = np.zeros(65536, bool)
    for _, band in _bands(image):
        occurs[np.asarray(band).ravel()] = True
    values = np.flatnonzero(occurs)
    # The PNG standard requires samples to be scaled to 16 bits, but some programs do not do so.
    scaled = (values >> (16 - bits)) * (65535 / (2**bits - 1))
    is_unscaled = values.max() < 2**bits and np.abs(values - scaled).max() > 2
    return bits if is_unscaled else 16


def _tags(image: PIL.Image.Image) -> dict:
    return getattr(image, "tag_v2", {})


def _tiff_bits(image: PIL.Image.Image) -> tuple[int, ...]:
    """The number of bits of each sample of a pixel in a TIFF; (8,) for other formats."""
    return tuple(_tags(image).get(_BITS_PER_SAMPLE, ())) or (8,)


def _ppm_white(image: PIL.Image.Image) -> int:
    """The sample value of white in a PPM or PGM; 255 for other formats."""
    tile = getattr(image, "tile", ())  # only images opened from a file have it
    arguments = tile[0][3] if image.format == "PPM" and tile else ()
    return arguments[1] if len(arguments) == 2 and isinstance(arguments, tuple) else 255


def _bits_per_pixel(image: PIL.Image.Image) -> int:
    height, width = (_tags(image).get(tag) for tag in (_TILE_LENGTH, _TILE_WIDTH))
    if isinstance(height, int) and isinstance(width, int):
        headers.require_decodable(height, width)  # a tile is decoded whole, even for a small image
    decoded = {"I": 32, "F": 32, "RGBA": 32, "RGBa": 32, "CMYK": 32}.get(image.mode, 24)
    return max(decoded, sum(_tiff_bits(image)))


@functools.cache
def _formats() -> tuple[str, ...]:
    PIL.Image.init()
    return tuple(name for name in _FORMATS if name in PIL.Image.OPEN)
