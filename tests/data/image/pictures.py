"""Pictures for tests, as pixels and in every kind of file."""

import io
import struct

import numpy as np
import PIL.Image


def picture(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise and a sharp edge, uint8 (height, width, channels)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(generator.uniform(0.02, 0.1) * x + generator.uniform(0.02, 0.1) * y + channel)
        for channel in range(channels)
    ]
    pixels = 128 + 80 * np.stack(waves, axis=-1) + generator.normal(0, 4, (height, width, channels))
    pixels[: height // 2, : width // 3] += 40
    return np.clip(pixels, 0, 255).astype(np.uint8)


def encode(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    """RGB pixels as a JPEG file."""
    return encode(PIL.Image.fromarray(pixels), "JPEG", **options)


def files(height: int = 40, width: int = 52) -> dict[str, bytes]:
    """One picture in every kind of file."""
    image = PIL.Image.fromarray(picture(height, width))
    gray = image.convert("L")
    gray16 = PIL.Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    rotated = PIL.Image.Exif()
    rotated[0x0112] = 6
    transparent = image.quantize(16)
    return {
        "jpeg": encode(image, "JPEG", quality=90),
        "jpeg 4:4:4": encode(image, "JPEG", quality=90, subsampling=0),
        "jpeg 4:2:2": encode(image, "JPEG", quality=90, subsampling=1),
        "jpeg, progressive": encode(image, "JPEG", quality=90, progressive=True),
        "jpeg, restart markers": encode(image, "JPEG", quality=90, restart_marker_blocks=2),
        "jpeg, gray": encode(gray, "JPEG", quality=90),
        "jpeg, CMYK": encode(image.convert("CMYK"), "JPEG", quality=95),
        "jpeg, EXIF": encode(image, "JPEG", quality=90, exif=rotated),
        "jpeg, bytes at the end": encode(image, "JPEG", quality=90) + b"\0\0",
        "png": encode(image, "PNG"),
        "png, gray": encode(gray, "PNG"),
        "png, 16 bits": encode(gray16, "PNG"),
        "png, one bit": encode(gray.convert("1"), "PNG"),
        "png, palette": encode(image.quantize(16), "PNG"),
        "png, transparent palette": encode(transparent, "PNG", transparency=bytes(range(16))),
        "png, opacity": encode(image.convert("RGBA"), "PNG"),
        "png, gray and opacity": encode(gray.convert("LA"), "PNG"),
        "bmp": encode(image, "BMP"),
        "gif": encode(image, "GIF"),
        "webp": encode(image, "WEBP", lossless=True),
        "tiff": encode(image, "TIFF"),
    }


def claimed_size(encoded: bytes, height: int, width: int) -> bytes:
    """The JPEG file with another size in its frame header."""
    at = encoded.index(b"\xff\xc0") + 5
    return encoded[:at] + struct.pack(">HH", height, width) + encoded[at + 4 :]
