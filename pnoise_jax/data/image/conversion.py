"""What Pillow opens, as pixels of 8 bits with the wanted channels; or refused, by name."""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image

from pnoise_jax.data.image import headers
from pnoise_jax.data.image.headers import ImageError

# They hold pixels and nothing to be run, as EPS does.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323  # tags of TIFF
_WHITE_IS_ZERO = 0
_TOLD_APART = 14  # of 15 bits the two ways to store them differ by rounding only
_BAND = 2**22  # pixels that are converted at a time

# Pillow warns of large images; here `headers.MAX_BYTES` decides.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


class ChannelsError(ValueError):
    """An image that does not have the channels that its data set declares."""


@contextlib.contextmanager
def opened(encoded: bytes) -> Iterator[PIL.Image.Image]:
    """The image, of which only the header has been read.

    Raises:
      ImageError: bytes that are no image of a known kind, or too large a one.
    """
    if headers.png_header(encoded) is not None:
        encoded = headers.png_without_texts(encoded)
    try:
        image = PIL.Image.open(io.BytesIO(encoded), formats=_formats())
    except MemoryError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large: {error}") from error
    except Exception as error:  # damaged files bring decoders to raise whatever they like
        start = bytes(encoded[:8])
        raise ImageError(
            f"not an image that can be read: {len(encoded)} bytes that begin with {start!r} "
            f"({type(error).__name__})"
        ) from error
    with image:
        headers.require_decodable(image.height, image.width, bits_per_pixel=_bits_per_pixel(image))
        yield image


def decode(encoded: bytes, channels: int | None) -> np.ndarray:
    """uint8 (height, width, channels); see `images.decode`, which is for callers.

    Raises:
      ImageError: it cannot be opened, is cut off, or its samples cannot be converted.
      ChannelsError: it does not have these channels.
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
    """Raises ImageError where a PNG lacks its palette, for which Pillow takes grey levels."""
    is_indexed = image.format == "PNG" and image.mode == "P"
    if is_indexed and b"PLTE" not in encoded[: encoded.find(b"IDAT")]:
        raise ImageError("a PNG whose palette is missing: it is damaged")


def _pixels(image: PIL.Image.Image, encoded: bytes, channels: int) -> np.ndarray | None:
    """(height, width, channels); None: the image does not have them."""
    to_eight_bits = _to_eight_bits(image, encoded)
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    for rows, band in _bands(image):  # the whole at once would take several times its memory
        part = _with_channels(to_eight_bits(band), channels)
        if part is None:
            return None
        pixels[rows] = part
    return pixels


def _bands(image: PIL.Image.Image) -> Iterator[tuple[slice, PIL.Image.Image]]:
    """The image in parts of full width, and their rows."""
    height = max(1, _BAND // image.width)
    if height >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, height):
        bottom = min(image.height, top + height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def own_channels(image: PIL.Image.Image) -> int:
    """How many channels the file has, as TFDS reads it: 1, 3, or 4 with opacity."""
    if _has_opacity(image):
        return 4
    return 1 if image.mode in ("1", "L") or image.mode.startswith("I") else 3


def sample_bits(encoded: bytes) -> int:
    """The bits of a sample of the file, from its header: 8 where it has fewer.

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
    """Of gray, one transparent level does not count: TFDS ignores it."""
    transparent = "transparency" in image.info and image.mode in ("P", "RGB")
    return transparent or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")


def _with_channels(image: PIL.Image.Image, channels: int) -> np.ndarray | None:
    """(height, width, channels); None: the image does not have them."""
    if image.mode in ("La", "RGBa"):  # colours multiplied by the opacity
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
    """(height, width, 1); None where there are colours."""
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image if image.mode == "L" else image.convert("L"))[..., None]
    pixels = np.asarray(_to_rgb(image))  # a palette, or RGB, that may have gray only
    is_gray = (pixels[..., :1] == pixels[..., 1:]).all()
    return np.ascontiguousarray(pixels[..., :1]) if is_gray else None


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns
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
    """What makes 8 bits of the samples of a part: of more, the upper 8 are kept.

    Raises:
      ImageError: samples for which the file does not say what is black and what is white.
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
    # Pillow heeds this for 8 bits only.
    inverted = _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO

    def upper(part: PIL.Image.Image) -> PIL.Image.Image:
        gray = (np.asarray(part) >> shift).astype(np.uint8)
        return PIL.Image.fromarray(255 - gray if inverted else gray)

    return upper


def _declared_bits(image: PIL.Image.Image, encoded: bytes) -> int:
    """How many bits the samples have: 16, unless the file says that they have fewer."""
    if image.format == "TIFF":
        return max(8, *_tiff_bits(image))
    bits = headers.png_significant_bits(encoded) if image.format == "PNG" else None
    if bits is None or not 8 <= bits <= _TOLD_APART:
        return 16
    is_there = np.zeros(65536, bool)
    for _, band in _bands(image):
        is_there[np.asarray(band).ravel()] = True
    values = np.flatnonzero(is_there)
    # PNG wants samples of fewer bits stretched to 16, and some programs leave them as they are.
    stretched = (values >> (16 - bits)) * (65535 / (2**bits - 1))
    as_they_are = values.max() < 2**bits and np.abs(values - stretched).max() > 2
    return bits if as_they_are else 16


def _tags(image: PIL.Image.Image) -> dict:
    return getattr(image, "tag_v2", {})


def _tiff_bits(image: PIL.Image.Image) -> tuple[int, ...]:
    """Of each sample of a pixel; of other formats as if they had 8."""
    return tuple(_tags(image).get(_BITS_PER_SAMPLE, ())) or (8,)


def _ppm_white(image: PIL.Image.Image) -> int:
    """The sample that is white in a PPM or PGM; of other formats as if it were 255."""
    tile = getattr(image, "tile", ())  # of images that come from a file
    arguments = tile[0][3] if image.format == "PPM" and tile else ()
    return arguments[1] if len(arguments) == 2 and isinstance(arguments, tuple) else 255


def _bits_per_pixel(image: PIL.Image.Image) -> int:
    height, width = (_tags(image).get(tag) for tag in (_TILE_LENGTH, _TILE_WIDTH))
    if isinstance(height, int) and isinstance(width, int):
        headers.require_decodable(height, width)  # it is decoded whole, however small the image
    held = {"I": 32, "F": 32, "RGBA": 32, "RGBa": 32, "CMYK": 32}.get(image.mode, 24)
    return max(held, sum(_tiff_bits(image)))


@functools.cache
def _formats() -> tuple[str, ...]:
    PIL.Image.init()
    return tuple(name for name in _FORMATS if name in PIL.Image.OPEN)
