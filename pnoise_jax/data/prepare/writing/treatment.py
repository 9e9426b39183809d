"""Verifies one image, and repairs, converts or shrinks it if required."""

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
_DARK = 14  # 16-bit samples that need at most this many bits are probably not scaled to 16 bits
_SUPERFLUOUS = 64  # extraneous bytes that a JPEG may have; more are a sign of damage


@dataclasses.dataclass(frozen=True)
class Treated:
    """An image as it is stored.

    Attributes:
      data: the encoded image.
      change: what was done to it; "" if nothing.
      damage: the complaint of its decoder; "" if none.
      dark_bits: for an image with 16 bits per sample, of which only the upper 8 are read: the
        number of bits that its samples need, if so few that most levels are lost; otherwise None.
    """

    data: bytes
    change: str = ""
    damage: str = ""
    dark_bits: int | None = None


def treat(data: bytes, *, rule: Rule, short_side: int | None = None) -> Treated:
    """Verifies an encoded image, and changes it if necessary.

    Args:
      data: the encoded image.
      rule: "keep" leaves the bytes as they are. "repair" makes an RGB JPEG. "convert" removes CMYK,
        palettes, 16 bits, transparency and EXIF orientation, and makes a PNG of any format other
        than JPEG and PNG; other images stay as they are.
      short_side: in pixels; an image with a longer short side is shrunk to it, and becomes a JPEG.

    Raises:
      ValueError: the image cannot be decoded, is cut off, damaged or too large, or has samples that
        cannot be converted to 8 bits; the message says which. With "keep" and "repair", damaged
        images that can be read are kept.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        return _treat(data, rule, short_side)
    except ValueError:
        raise
    except Exception as error:  # decoders may raise anything on damaged files
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
    """The `dark_bits` of `Treated`.

    Args:
      data: the encoded image.
      pixels: the image as it is read.
    """
    if data.startswith(_JPEG) or conversion.sample_bits(data) == 8:
        return None
    is_rounded = data.startswith(b"P")  # a PPM: Pillow rounds, not truncates
    needed = 8 + max(0, int(pixels.max()) - is_rounded).bit_length()
    return needed if needed <= _DARK else None


def _damage(data: bytes, *, tolerant: bool) -> str:
    """The complaint of the decoder about a JPEG; "" if none.

    Raises:
      ValueError: not `tolerant`, and the damage is more than a few superfluous bytes.
    """
    try:  # at an eighth of the size: reads all bits, but computes few pixels
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
    except (ValueError, KeyError) as error:  # KeyError: no colour space was found
        raise ValueError("not a whole image: cut off, or its header is damaged") from error


def _conversions(data: bytes, orientation: int) -> list[str]:
    """The conversions that an image needs."""
    conversions = []
    if data.startswith(_JPEG):
        if _is_cmyk(data):
            conversions.append("CMYK to RGB")
    elif data.startswith(_PNG):
        # A PNG's first chunk contains the bits per channel, then 0 for grey and 2 for RGB.
        depth, colour = data[24], data[25]
        if depth != 8 or colour not in (0, 2) or b"tRNS" in data[: data.find(b"IDAT")]:
            conversions.append("PNG to 8-bit RGB")
    else:
        conversions.append(f"{_other_format(data)} to PNG")
    if orientation != 1:
        conversions.append("turned upright (EXIF)")
    return conversions


def _other_format(data: bytes) -> str:
    """The name of a format other than JPEG and PNG; only formats without code to run are read."""
    try:
        with Image.open(io.BytesIO(data), formats=_OTHER_FORMATS) as image:
            return str(image.format)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"not an image: it begins with {data[:8]!r}, unlike JPEG, PNG or "
            f"{', '.join(_OTHER_FORMATS)}"
        ) from error


def _has_frames(data: bytes) -> bool:
    """Whether an image has frames, or pages, after the one that is read."""
    try:
        with conversion.opened(data) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # the rest after the first frame is damaged
        return False


def _orientation(data: bytes) -> int:
    """The EXIF orientation, from 1 to 8; 1 is upright."""
    if data.startswith(_PNG) and b"eXIf" not in data:
        return 1  # Pillow would decode the image to find that out
    try:
        with conversion.opened(data) as image:
            if image.format == "TIFF":
                return 1  # Pillow turns the image when it reads it
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
