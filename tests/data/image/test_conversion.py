"""Channels and depths of every kind of file, against TFDS's own reader; long texts; limits."""

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import tensorflow_datasets as tfds

from pnoise_jax.data.image import conversion, headers, images
from pnoise_jax.data.image.conversion import ChannelsError
from pnoise_jax.data.image.images import Encoded
from pnoise_jax.data.prepare.writing.treatment import treat
from tests.data.image.pictures import claimed_size, encode, files, jpeg, picture

PIXELS = picture(40, 52)
COLOURS = PIL.Image.fromarray(PIXELS)
GRAY = COLOURS.convert("L")
WIDE = np.asarray(GRAY).astype(np.uint16) * 257 - 128  # 16 bits per sample


def wide_png(pixels: np.ndarray) -> bytes:
    """A PNG with 16 bits per sample, colours in BGR."""
    return cv2.imencode(".png", pixels)[1].tobytes()


FILES = files() | {
    "png, gray and a transparent level": encode(GRAY, "PNG", transparency=5),
    "png, a transparent colour": encode(COLOURS, "PNG", transparency=(1, 2, 3)),
    "png, palette of gray": encode(GRAY.convert("RGB").quantize(256), "PNG"),
    "png, RGB that is gray": encode(GRAY.convert("RGB"), "PNG"),
    "png, RGB of 16 bits": wide_png(PIXELS.astype(np.uint16) * 257),
    "png, RGBA of 16 bits": wide_png(picture(40, 52, 4).astype(np.uint16) * 257),
}


def by_tfds(encoded: bytes, channels: int) -> np.ndarray:
    return tfds.features.Image(shape=(None, None, channels)).decode_example_np(encoded)


def is_refused(kind: str, channels: int) -> bool:
    try:
        images.decode(Encoded(FILES[kind], channels))
    except ChannelsError:
        return True
    return False


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", FILES)
def test_declared_channels_are_as_tfds_reads_them_or_refused(kind, channels):
    theirs = by_tfds(FILES[kind], channels)
    # TFDS makes two or four equal channels of gray, opacity among them.
    opaque_gray = channels in (2, 4) and bool((theirs == theirs[..., :1]).all())
    if is_refused(kind, channels):
        assert theirs.shape[2] != channels or opaque_gray
        return
    ours = images.decode(Encoded(FILES[kind], channels))
    assert ours.shape == (40, 52, channels)
    assert ours.dtype == np.uint8
    if theirs.shape[2] == channels:
        tolerance = 1 if kind == "jpeg, CMYK" else 0  # Pillow and OpenCV round differently
        np.testing.assert_allclose(ours.astype(int), theirs, rtol=0, atol=tolerance)
    else:  # opacity that is dropped, or colours that are all gray
        assert theirs.shape[2] > channels
        kept = min(channels, 3) if channels != 2 else 1
        np.testing.assert_array_equal(ours[..., :kept], theirs[..., :kept])


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("jpeg", {1, 2, 4}),
        ("jpeg, gray", {2, 4}),
        ("png, palette", {1, 2, 4}),
        ("png, palette of gray", {2, 4}),
        ("png, RGB that is gray", {2, 4}),
        ("png, gray", {2, 4}),
        ("png, 16 bits", {2, 4}),
        ("png, transparent palette", {1, 2}),
        ("png, opacity", {1, 2}),
        ("png, gray and opacity", set()),
        ("jpeg, CMYK", {1, 2, 4}),
    ],
)
def test_which_channels_are_refused(kind, refused):
    assert {channels for channels in (1, 2, 3, 4) if is_refused(kind, channels)} == refused


@pytest.mark.parametrize("kind", FILES)
def test_undeclared_channels_are_the_files_own(kind):
    ours = images.decode(Encoded(FILES[kind], None))
    try:
        theirs = by_tfds(FILES[kind], None)
    except TypeError:  # of gray, which TFDS repeats None times
        theirs = by_tfds(FILES[kind], 1)
    np.testing.assert_allclose(ours.astype(int), theirs, rtol=0, atol=kind == "jpeg, CMYK")


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_files_are_cropped_with_one_channel(channels):
    encoded = Encoded(FILES["jpeg, gray"], channels)
    actual = images.crop_and_resize(encoded, (3, 5, 30, 40), (10, 10), antialias=False)
    assert actual.shape == (10, 10, channels)
    rgb = images.crop_and_resize(encoded.data, (3, 5, 30, 40), (10, 10), antialias=False)
    np.testing.assert_allclose(actual[..., 0].astype(int), rgb[..., 0], rtol=0, atol=1)
    assert images.image_size(encoded) == (40, 52)


def test_a_refusal_says_what_the_file_has():
    with pytest.raises(ChannelsError, match=r"the file has 3 channels \(a palette\), not 1"):
        images.decode(Encoded(FILES["png, palette"], 1))
    with pytest.raises(ChannelsError, match=r"the file has 1 channel \(gray\), not 4"):
        images.decode(Encoded(FILES["png, gray"], 4))
    with pytest.raises(ChannelsError, match=r"4 channels \(RGBA with opacity\), not 1"):
        images.decode(Encoded(FILES["png, opacity"], 1))


# Depths


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_sixteen_bits_the_upper_eight_are_kept(kind, byte_order):
    encoded = encode(PIL.Image.fromarray(WIDE.astype(byte_order + "u2")), kind)
    np.testing.assert_array_equal(images.decode(encoded)[..., 0], WIDE >> 8)


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """Adds a chunk after the header."""
    body = kind + data
    chunk = struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_bits_that_a_png_declares(bits):
    """Stretched to 16, as the format requires, or left as they are."""
    samples = WIDE >> (16 - bits)
    expected = WIDE >> 8
    stretched = np.rint(samples * (65535 / (2**bits - 1)))
    forms = (samples, samples << (16 - bits), stretched, WIDE)
    for form in forms:
        png = encode(PIL.Image.fromarray(form.astype(np.uint16)), "PNG")
        actual = images.decode(with_chunk(png, b"sBIT", bytes([bits])))[..., 0]
        assert np.abs(actual.astype(int) - expected).max() <= 1
    dark = (stretched // 64).astype(np.uint16)  # a dark image does not have fewer bits
    dark = np.rint((dark >> (16 - bits)) * (65535 / (2**bits - 1))).astype(np.uint16)
    png = with_chunk(encode(PIL.Image.fromarray(dark), "PNG"), b"sBIT", bytes([bits]))
    np.testing.assert_array_equal(images.decode(png)[..., 0], dark >> 8)


def tiff(samples: bytes, *, bits: int, photometric: int = 1, kind: int = 1) -> bytes:
    """An uncompressed gray TIFF of 52 x 40 pixels."""
    tags = {256: 52, 257: 40, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 40}
    tags |= {279: len(samples), 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(samples)) + samples + directory


def test_twelve_bits_that_a_tiff_declares():
    samples = (WIDE >> 4).reshape(-1, 2).astype(np.uint32)
    first, second = samples.T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    encoded = tiff(packed.astype(np.uint8).tobytes(), bits=12)
    np.testing.assert_array_equal(images.decode(encoded)[..., 0], WIDE >> 8)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero_in_a_tiff(bits):
    samples = (WIDE >> (16 - bits)).astype(f"<u{bits // 8}")
    encoded = tiff(samples.tobytes(), bits=bits, photometric=0)
    np.testing.assert_array_equal(images.decode(encoded)[..., 0], 255 - (WIDE >> 8))


def test_a_pgm_declares_its_white():
    header = b"P5\n52 40\n4095\n"
    encoded = header + (WIDE >> 4).astype(">u2").tobytes()
    assert np.abs(images.decode(encoded)[..., 0].astype(int) - (WIDE >> 8)).max() <= 1


@pytest.mark.parametrize(("kind", "samples"), [("P5", 1), ("P6", 3)])
@pytest.mark.parametrize(("white", "bits"), [(100, 8), (255, 8), (256, 16), (4095, 16)])
def test_samples_of_a_netpbm_file_have_the_bits_that_its_white_needs(kind, samples, white, bits):
    encoded = f"{kind}\n2 2\n{white}\n".encode() + bytes(4 * samples * bits // 8)
    assert conversion.sample_bits(encoded) == bits


def without_palette() -> bytes:
    encoded = encode(PIL.Image.fromarray(picture(8, 8)).quantize(16), "PNG")
    start = encoded.index(b"PLTE") - 4
    return encoded[:start] + encoded[start + 12 + int.from_bytes(encoded[start : start + 4]) :]


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (encode(PIL.Image.fromarray(WIDE.astype(np.float32)), "TIFF"), "floating-point"),
        (encode(PIL.Image.fromarray(WIDE.astype(np.int32)), "TIFF"), "32-bit numbers"),
        (tiff(WIDE.astype("<i2").tobytes(), bits=16, kind=2), "signed 16-bit numbers"),
        (b"Pf\n2 2\n-1.0\n" + bytes(16), "floating-point"),
        (without_palette(), "palette is missing"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(encoded, message):
    for antialias in (True, False):
        with pytest.raises(images.ImageError, match=message):
            images.crop_and_resize(encoded, None, (8, 8), antialias=antialias)


# Long texts


def long_text(compressed: bool) -> bytes:
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("x", "y" * 2_000_000, zip=compressed)
    info.add_itxt("z", "y" * 2_000_000, zip=compressed)
    return encode(COLOURS, "PNG", pnginfo=info)


def long_texts() -> bytes:
    info = PIL.PngImagePlugin.PngInfo()
    for i in range(70):  # together more than Pillow's MAX_TEXT_MEMORY
        info.add_text(f"x{i}", "y" * 1_000_000, zip=True)
    return encode(COLOURS, "PNG", pnginfo=info)


def long_profile() -> bytes:
    profile = b"ICC Profile\0\0" + zlib.compress(bytes(2_000_000))
    return with_chunk(encode(COLOURS, "PNG"), b"iCCP", profile)


@pytest.mark.parametrize(
    "png",
    [long_text(True), long_text(False), long_texts(), long_profile()],
    ids=["zTXt", "tEXt", "many", "iCCP"],
)
def test_a_png_with_a_long_text_or_profile(png):
    np.testing.assert_array_equal(images.decode(png), PIXELS)
    assert treat(png, rule="convert").data == png
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    info = with_chunk(png, b"eXIf", turned.tobytes()[6:])
    upright = images.decode(treat(info, rule="convert").data)
    np.testing.assert_array_equal(upright, np.rot90(PIXELS, -1))


def test_pillows_own_limits_stay():
    images.decode(long_text(True))
    assert PIL.PngImagePlugin.MAX_TEXT_CHUNK == 2**20
    with pytest.raises(ValueError, match="too large"):
        PIL.Image.open(io.BytesIO(long_text(True)))


# Limits


def small_png(height: int, width: int, bits: int, colour: int) -> bytes:
    """Black, of a few hundred kilobytes whatever its size."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width * channels * bits // 8))
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"PLTE", bytes(3))] if colour == 3 else [])]
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in [*chunks, (b"IDAT", packed), (b"IEND", b"")]:
        png += struct.pack(">I", len(data)) + kind + data
        png += struct.pack(">I", zlib.crc32(kind + data))
    return png


MEASURE = """
import resource, sys, time
from pnoise_jax.data.image import images
from tests.data.image.test_conversion import small_png
for size in sys.argv[1:]:
    png = small_png(*map(int, size.split(",")))
    images.decode(small_png(8, 8, 8, 2))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        print(images.decode(png).shape)
    except images.ImageError as error:
        print(error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(len(png), peak / 2**20, time.monotonic() - start)
"""


def measured(*sizes: str) -> list[tuple[str, int, float, float]]:
    """For each: the output, the bytes of the file, the gigabytes and the seconds it took."""
    command = [sys.executable, "-c", MEASURE, *sizes]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = []
    for output, numbers in zip(lines[::2], lines[1::2], strict=True):
        size, peak, seconds = map(float, numbers.split())
        rows.append((output, int(size), peak, seconds))
    return rows


def test_memory_and_time_are_bounded_before_decoding():
    claims, photo = measured("13300,13300,16,0", "4000,6000,16,0")
    output, size, peak, seconds = claims
    assert size < 350_000
    assert output == (
        "an image of 13300 x 13300 pixels is too large: decoded, it takes 531 MB, but the limit is "
        "480 MB; make it smaller"
    )
    assert peak < 0.05
    assert seconds < 1
    assert photo[0] == "(4000, 6000, 3)"
    assert photo[2] < 0.2  # 72 MB of RGB, 48 MB in Pillow, and smaller arrays


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["16,0", "8,2", "1,3"])
def test_the_largest_images_are_read_within_bounds(kind):
    ((output, _, peak, _),) = measured(f"12600,12600,{kind}")
    assert output == "(12600, 12600, 3)"
    assert peak < 1.3


@pytest.mark.parametrize(
    ("height", "width", "bits", "colour", "fits"),
    [
        (12_000, 12_000, 8, 2, True),
        (12_240, 16_320, 8, 2, False),
        (13_300, 13_300, 8, 0, False),
        (8_900, 8_900, 16, 2, True),
        (9_000, 9_000, 16, 2, False),
        (10_900, 10_900, 8, 6, True),
        (11_000, 11_000, 8, 6, False),
        (7_000, 7_000, 16, 6, True),
        (20_000, 20_000, 1, 0, False),
    ],
)
def test_pixels_times_bytes_are_limited(height, width, bits, colour, fits):
    png = bytearray(small_png(8, 8, bits, colour))
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    if fits:
        assert images.image_size(bytes(png)) == (height, width)
        return
    for read in (images.image_size, images.decode):
        with pytest.raises(images.ImageError, match=rf"{height} x {width} pixels is too large"):
            read(bytes(png))


def test_photos_of_a_hundred_megapixels_are_read():
    claimed = claimed_size(jpeg(PIXELS), 9000, 12_000)
    assert images.image_size(claimed) == (9000, 12_000)


def test_the_tiles_of_a_tiff_are_limited():
    whole = tiff(bytes(40 * 52), bits=8)
    width_and_length = struct.pack("<HHIIHHII", 322, 4, 1, 30_000, 323, 4, 1, 30_000)
    old = struct.pack("<HHIIHHII", 277, 4, 1, 1, 278, 4, 1, 40)
    tiled = whole.replace(old, width_and_length)
    assert tiled != whole
    with pytest.raises(images.ImageError, match="30000 x 30000 pixels is too large"):
        images.decode(tiled)


def test_a_jpeg_of_many_scans_is_refused(monkeypatch):
    encoded = jpeg(PIXELS, progressive=True)
    scans = encoded.count(b"\xff\xda")
    assert scans > 3
    monkeypatch.setattr(headers, "MAX_SCANNED_PIXELS", 40 * 52 * scans)
    images.decode(encoded)
    monkeypatch.setattr(headers, "MAX_SCANNED_PIXELS", 40 * 52 * scans - 1)
    with pytest.raises(images.ImageError, match=f"40 x 52 pixels in {scans} scans"):
        images.image_size(encoded)


@pytest.mark.parametrize("kind", [*FILES, "avif", "jpeg 2000", "tiff, 16 bits"])
def test_damaged_bytes_raise_only_image_errors(kind):
    more = {"avif": "AVIF", "jpeg 2000": "JPEG2000"}
    if kind in FILES:
        whole = FILES[kind]
    elif kind in more:
        whole = encode(COLOURS, more[kind])
    else:
        whole = encode(PIL.Image.fromarray(WIDE), "TIFF")
    generator = np.random.default_rng(len(whole))
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = generator.integers(0, min(len(whole), 300), 3)
        damaged[places] = generator.integers(0, 256, 3)
        try:
            assert images.decode(damaged.tobytes()).shape[2] == 3
        except images.ImageError as error:
            assert str(error)  # noqa: PT017, most raise, and some are read
