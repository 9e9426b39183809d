"""What becomes of one image: verified, and repaired, converted or shrunk where that is asked."""

import dataclasses
import io
import re
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from pnoise_jax.data.image import conversion, images

Rule = Literal["keep", "repair", "convert"]

SHRUNK_QUALITY = 90
CONVERTED_QUALITY = 95
REPAIRED_QUALITY = 100  # as TFDS repairs

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_OTHER_FORMATS = ("BMP", "GIF", "PPM", "TIFF", "WEBP")
_ORIENTATION = 0x0112
_DARK = 14  # bits that samples of 16 bits need, at most, where the lower ones are likely the image
_SUPERFLUOUS = 64  # bytes that a JPEG may have too many; more come of damage


@dataclasses.dataclass(frozen=True)
class Treated:
    """An image as it is stored.

    Attributes:
      data: the file.
      change: what was done to it, "" if nothing.
      damage: what its decoder complains about, "" if nothing.
      dark_bits: of an image with 16 bits per sample, of which the upper 8 are read: how many its
        samples need, if that is so few that most levels are lost; else None.
    """

    data: bytes
    change: str = ""
    damage: str = ""
    dark_bits: int | None = None


def treat(data: bytes, *, rule: Rule, short_side: int | None = None) -> Treated:
    """Verifies an encoded image, and changes it where it must be.

    Args:
      data: the file.
      rule: "keep": its bytes stay. "repair": it becomes an RGB JPEG. "convert": CMYK, palettes,
        16 bits, transparency and EXIF orientation go, and what is neither JPEG nor PNG becomes a
        PNG; anything else stays.
      short_side: pixels; an image with a longer one becomes a JPEG with this one.

    Raises:
      ValueError: it cannot be decoded, is cut off, damaged, too large or has samples that cannot
        become 8 bits; says which. With "keep" and "repair", what is damaged but can be read is
        kept.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        return _treat(data, rule, short_side)
    except ValueError:
        raise
    except Exception as error:  # damaged files bring decoders to raise whatever they like
        raise ValueError(f"cannot be decoded ({type(error).__name__}: {error})") from error


def _treat(data: bytes, rule: Rule, short_side: int | None) -> Treated:
    is_jpeg = data.startswith(_JPEG)
    if not is_jpeg and not data.startswith(_PNG):
        _other_format(data)
    height_and_width = images.image_size(data)  # too large ones are refused before decoding
    damage = _damage(data, tolerant=rule != "convert") if is_jpeg else ""
    if rule == "repair":
        pixels = images.decode(data)
        changes = ["CMYK to RGB" if is_jpeg else "PNG to JPEG"]
        encoding, quality = "JPEG", REPAIRED_QUALITY
    else:
        shrinks = short_side is not None and min(height_and_width) > short_side
        orientation = _orientation(data) if rule == "convert" else 1
        changes = _conversions(data, orientation) if rule == "convert" else []
        if not changes and not shrinks:
            dark_bits = None
            if damage or not is_jpeg:
                dark_bits = _dark_bits(data, images.decode(data))
            return Treated(data, damage=damage, dark_bits=dark_bits)
        pixels = _upright(images.decode(data), orientation)
        encoding, quality = ("JPEG" if is_jpeg else "PNG"), CONVERTED_QUALITY
    if not is_jpeg and _has_frames(data):
        changes.append("all frames but the first dropped")
    dark_bits = _dark_bits(data, pixels)
    image = Image.fromarray(pixels)
    if short_side is not None and min(image.size) > short_side:
        image = _shrunk(image, short_side)
        changes.append("shrunk")
        encoding, quality = "JPEG", SHRUNK_QUALITY
    return Treated(_encoded(image, encoding, quality), ", ".join(changes), damage, dark_bits)


def _dark_bits(data: bytes, pixels: np.ndarray) -> int | None:
    """See `Treated`; of an image as it is read."""
    if data.startswith(_JPEG) or conversion.sample_bits(data) == 8:
        return None
    is_rounded = data.startswith(b"P")  # a PPM, where Pillow does not cut the lower bits off
    needed = 8 + max(0, int(pixels.max()) - is_rounded).bit_length()
    return needed if needed <= _DARK else None


def _damage(data: bytes, *, tolerant: bool) -> str:
    """What the decoder complains about in a JPEG, "" if nothing.

    Raises:
      ValueError: not `tolerant`, and more is wrong than a few superfluous bytes.
    """
    try:  # at an eighth of the size: all bits are read, and few pixels computed
        colours = "CMYK" if _is_cmyk(data) else "GRAY"
        simplejpeg.decode_jpeg(data, colours, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        complaint = str(error)
    else:
        return ""
    superfluous = re.search(r"(\d+) extraneous bytes", complaint)
    is_missing = re.search("premature|corrupt", complaint, re.IGNORECASE)
    if not tolerant and is_missing and not (superfluous and int(superfluous[1]) <= _SUPERFLUOUS):
        raise ValueError(f"damaged or cut off ({complaint})")
    return complaint


def _is_cmyk(data: bytes) -> bool:
    try:
        return simplejpeg.decode_jpeg_header(data, strict=False)[2] in ("CMYK", "YCCK")
    except (ValueError, KeyError) as error:  # KeyError: it found no colours
        raise ValueError("not a whole image: cut off or damaged in its header") from error


def _conversions(data: bytes, orientation: int) -> list[str]:
    """Why an image cannot stay as it is."""
    conversions = []
    if data.startswith(_JPEG):
        if _is_cmyk(data):
            conversions.append("CMYK to RGB")
    elif data.startswith(_PNG):
        # In a PNG's first chunk: bits per channel, then 0 for gray and 2 for RGB.
        depth, colour = data[24], data[25]
        if depth != 8 or colour not in (0, 2) or b"tRNS" in data[: data.find(b"IDAT")]:
            conversions.append("PNG to 8-bit RGB")
    else:
        conversions.append(f"{_other_format(data)} to PNG")
    if orientation != 1:
        conversions.append("turned upright (EXIF)")
    return conversions


def _other_format(data: bytes) -> str:
    """Which it is: only of those that hold pixels and nothing to be run."""
    try:
        with Image.open(io.BytesIO(data), formats=_OTHER_FORMATS) as image:
            return str(image.format)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"no image: it begins with {data[:8]!r}, not as JPEG, PNG or "
            f"{', '.join(_OTHER_FORMATS)} do"
        ) from error


def _has_frames(data: bytes) -> bool:
    """Whether it has frames, or pages, after the one that is read."""
    try:
        with conversion.opened(data) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # what follows the first frame is damaged
        return False


def _orientation(data: bytes) -> int:
    """EXIF's, 1..8; 1 is upright."""
    if data.startswith(_PNG) and b"eXIf" not in data:
        return 1  # Pillow would decode it to find that out
    try:
        with conversion.opened(data) as image:
            if image.format == "TIFF":
                return 1  # Pillow turns it when it is read
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation == 1:
        return pixels
    image = Image.fromarray(pixels)
    image.getexif()[_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def _shrunk(image: Image.Image, short_side: int) -> Image.Image:
    scale = short_side / min(image.size)
    width, height = (max(short_side, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)  # antialiased


def _encoded(image: Image.Image, encoding: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, encoding, **({"quality": quality} if encoding == "JPEG" else {}))
    return buffer.getvalue()
