"""Reads the headers of encoded images, and checks limits before anything is decoded."""

from typing import NamedTuple

MAX_BYTES = 480_000_000
"""The maximum size of decoded pixels, at 3 bytes per pixel or more: 160 megapixels of RGB.

A file of a few hundred kilobytes can declare a far larger image, which would exhaust memory and
time.
"""

MAX_SCANNED_PIXELS = 4_000_000_000
"""The maximum of pixels times scans of a JPEG: each scan passes over the whole image."""

_UNUSED_CHUNKS = (b"iCCP", b"iTXt", b"tEXt", b"zTXt")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PNG = b"\x89PNG\r\n\x1a\n"
_SCAN, _PROGRESSIVE = b"\xff\xda", (0xC2, 0xC6, 0xCA, 0xCE)  # markers of JPEG


class ImageError(ValueError):
    """Bytes that are not an image, or an image that is truncated, too large or not convertible."""


def require_decodable(height: int, width: int, *, bits_per_pixel: int = 24) -> None:
    """Raises ImageError if the decoded image would take more than MAX_BYTES."""
    needed = height * width * max(24, bits_per_pixel) // 8
    if needed > MAX_BYTES:
        raise ImageError(
            f"an image of {height} x {width} pixels is too large: decoded, it takes "
            f"{needed / 1e6:.0f} MB, but the limit is {MAX_BYTES / 1e6:.0f} MB; make it smaller"
        )


# JPEG


class JpegHeader(NamedTuple):
    """The frame header of a JPEG.

    Attributes:
      height, width: in pixels.
      components: 1 (gray), 3 (YCbCr, RGB) or 4 (CMYK, YCCK).
      offset: the offset in the file of the two bytes of the height.
    """

    height: int
    width: int
    components: int
    offset: int


def jpeg_header(encoded: bytes) -> JpegHeader | None:
    """The frame header of a JPEG; None if it is not a JPEG, or an unusual one.

    Raises:
      ImageError: the decoded image would take more than MAX_BYTES, or it has too many scans.
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
            components = encoded[offset + 4]
            if not height or not width:
                return None
            require_decodable(height, width, bits_per_pixel=8 * components)
            header = JpegHeader(height, width, components, offset)
            _require_few_scans(encoded, header, marker in _PROGRESSIVE)
            return header
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4])
    return None


def _require_few_scans(encoded: bytes, header: JpegHeader, is_progressive: bool) -> None:
    first = encoded.find(_SCAN, header.offset)
    if not is_progressive and encoded[first + 4 : first + 5] == bytes([header.components]):
        return  # the first scan contains all components
    scans = encoded.count(_SCAN)  # does not occur in coded data, where a zero follows 0xFF
    if header.height * header.width * scans > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"a JPEG of {header.height} x {header.width} pixels in {scans} scans is too large: the "
            f"limit is {MAX_SCANNED_PIXELS // 10**9} billion pixels times scans; save it again "
            "with fewer scans"
        )


def with_height(encoded: bytes, header: JpegHeader, rows: int) -> bytearray:
    """The JPEG with its height changed to `rows`, so the decoder stops at the end of the crop.

    Rows are coded from top to bottom, so the remaining rows are decoded as before. The data after
    them is skipped, with a warning that is an error only in strict decoding.
    """
    changed = bytearray(encoded)
    changed[header.offset : header.offset + 2] = rows.to_bytes(2)
    return changed


# PNG


class PngHeader(NamedTuple):
    """The first chunk of a PNG.

    Attributes:
      height, width: in pixels.
      bits: the number of bits per sample: 1, 2, 4, 8 or 16.
      channels: the number of samples per pixel; 1 for a palette.
    """

    height: int
    width: int
    bits: int
    channels: int


def png_header(encoded: bytes) -> PngHeader | None:
    """The header of a PNG; None if it is not a PNG.

    Raises:
      ImageError: the decoded image would take more than MAX_BYTES.
    """
    if encoded[:8] != _PNG or encoded[12:16] != b"IHDR" or len(encoded) < 33:
        return None
    width, height = int.from_bytes(encoded[16:20]), int.from_bytes(encoded[20:24])
    bits, channels = encoded[24], _PNG_CHANNELS.get(encoded[25], 4)
    require_decodable(height, width, bits_per_pixel=bits * channels)
    return PngHeader(height, width, bits, channels)


def png_without_texts(encoded: bytes) -> bytes:
    """A PNG without its texts and colour profile.

    They are not used here, and Pillow rejects the whole image if they are long, because they could
    decompress to any size.
    """
    kept, start, position = [], 0, len(_PNG)
    while position + 12 <= len(encoded):
        end = position + 12 + int.from_bytes(encoded[position : position + 4])
        if encoded[position + 4 : position + 8] in _UNUSED_CHUNKS:
            kept.append(encoded[start:position])
            start = end
        position = end
    return b"".join([*kept, encoded[start:]]) if kept else encoded


def png_significant_bits(encoded: bytes) -> int | None:
    """The number of significant bits, from the chunk sBIT: the maximum over channels, or None."""
    position = len(_PNG)
    while position + 12 <= len(encoded):
        length = int.from_bytes(encoded[position : position + 4])
        kind = encoded[position + 4 : position + 8]
        if kind == b"sBIT":
            return max(encoded[position + 8 : position + 8 + length], default=None)
        if kind == b"IDAT":
            return None
        position += 12 + length
    return None
