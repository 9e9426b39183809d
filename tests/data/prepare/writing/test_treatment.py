"""One image: kept, repaired, converted or shrunk, or refused with a reason."""

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pnoise_jax.data.image import images
from pnoise_jax.data.prepare.writing.treatment import treat
from tests.data.archives import encode, image
from tests.data.image.pictures import picture

PHOTO = Image.open(io.BytesIO(image(3, 5, size=(60, 90))))


def open_image(data):
    return Image.open(io.BytesIO(data))


def difference(data, pixels):
    return np.abs(np.asarray(open_image(data), int) - np.asarray(pixels, int)).mean()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize(
    "data",
    [
        encode(PHOTO),
        encode(PHOTO, progressive=True),
        encode(PHOTO.convert("L")),
        encode(PHOTO, format="PNG"),
        encode(PHOTO.convert("L"), format="PNG"),
        encode(PHOTO, exif=exif(1)),
        encode(PHOTO.resize((1, 1))),
        encode(PHOTO.resize((1, 1)), format="PNG"),
        encode(PHOTO.resize((2000, 1))),
    ],
)
@pytest.mark.parametrize("rule", ["keep", "convert"])
def test_plain_images_stay_as_they_are(data, rule):
    treated = treat(data, rule=rule)
    assert treated.data == data
    assert not treated.change


@pytest.mark.parametrize(
    "data",
    [
        encode(PHOTO.convert("CMYK")),
        encode(PHOTO, exif=exif(6)),
        encode(PHOTO.convert("P"), format="PNG"),
        encode(PHOTO, format="BMP"),
    ],
)
def test_keep_keeps_what_readers_can_read(data):
    assert treat(data, rule="keep").data == data


@pytest.mark.parametrize(
    ("data", "change", "format"),
    [
        (encode(PHOTO.convert("CMYK")), "CMYK to RGB", "JPEG"),
        (encode(PHOTO.convert("P", palette=Image.Palette.ADAPTIVE), format="PNG"), "PNG", "PNG"),
        (encode(PHOTO.convert("RGBA"), format="PNG"), "PNG to 8-bit RGB", "PNG"),
        (encode(PHOTO, format="PNG", transparency=(0, 0, 0)), "PNG to 8-bit RGB", "PNG"),
        (encode(PHOTO, format="BMP"), "BMP to PNG", "PNG"),
        (encode(PHOTO, format="WEBP", lossless=True), "WEBP to PNG", "PNG"),
        (encode(PHOTO, format="TIFF"), "TIFF to PNG", "PNG"),
        (encode(PHOTO, format="PPM"), "PPM to PNG", "PNG"),
    ],
)
def test_converts(data, change, format):
    treated = treat(data, rule="convert")
    assert change in treated.change
    assert (open_image(treated.data).format, open_image(treated.data).mode) == (format, "RGB")
    assert difference(treated.data, PHOTO) < 8
    assert treat(treated.data, rule="convert").data == treated.data


def test_sixteen_bits_become_eight():
    gray = np.asarray(PHOTO.convert("L"))
    data = encode(Image.fromarray(gray.astype(np.uint16) * 257), format="PNG")
    treated = treat(data, rule="convert")
    np.testing.assert_array_equal(np.asarray(open_image(treated.data))[..., 0], gray)


@pytest.mark.parametrize("rule", ["keep", "convert"])
@pytest.mark.parametrize(
    ("bits", "dark"), [(16, None), (15, None), (14, 14), (12, 12), (10, 10), (8, 8), (5, 8)]
)
def test_images_that_use_few_of_sixteen_bits_are_detected(bits, dark, rule):
    ramp = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    for format in ("PNG", "TIFF"):
        data = encode(Image.fromarray(ramp), format=format)
        assert treat(data, rule=rule).dark_bits == dark
    colours = cv2.imencode(".png", np.dstack([ramp] * 3))[1].tobytes()
    ppm = b"P6\n8 8\n65535\n" + np.dstack([ramp] * 3).astype(">u2").tobytes()
    pgm = b"P5\n8 8\n65535\n" + ramp.astype(">u2").tobytes()
    for data in (colours, ppm, pgm):
        assert treat(data, rule=rule).dark_bits == dark
    assert treat(encode(Image.fromarray(ramp.astype(np.uint8) // 20)), rule=rule).dark_bits is None


@pytest.mark.parametrize(
    ("format", "change"),
    [
        ("GIF", "GIF to PNG"),
        ("WEBP", "WEBP to PNG"),
        ("TIFF", "TIFF to PNG"),
        ("PNG", "PNG to 8-bit RGB"),
    ],
)
def test_first_frame_of_an_animation(format, change):
    frames = [PHOTO.convert("P"), ImageOps.invert(PHOTO).convert("P")]
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format=format, save_all=True, append_images=frames[1:], **lossless)
    treated = treat(data, rule="convert")
    assert treated.change == f"{change}, all frames but the first dropped"
    assert difference(treated.data, frames[0].convert("RGB")) < 1
    shrunk = treat(data, rule="keep", short_side=30)
    assert shrunk.change == "all frames but the first dropped, shrunk"
    assert treat(data, rule="keep").data == data
    assert treat(encode(frames[0], format=format), rule="convert").change == change


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_baked_in(orientation, format):
    data = encode(PHOTO, format=format, exif=exif(orientation))
    treated = treat(data, rule="convert")
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    turned = ["turned upright (EXIF)"] * (format != "TIFF")  # which Pillow turns as it reads them
    converted = [f"{format} to PNG"] * (format in ("WEBP", "TIFF"))
    assert treated.change == ", ".join(converted + turned)
    assert open_image(treated.data).size == expected.size
    assert difference(treated.data, expected) < 3
    assert open_image(treated.data).getexif().get(0x0112, 1) == 1
    assert images.image_size(treated.data) == expected.size[::-1]


@pytest.mark.parametrize("rule", ["keep", "convert"])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_shrinks_the_short_side(rule, format):
    data = encode(PHOTO, format=format)
    treated = treat(data, rule=rule, short_side=30)
    assert treated.change == "shrunk"
    assert open_image(treated.data).format == "JPEG"
    assert open_image(treated.data).size == (45, 30)
    assert difference(treated.data, PHOTO.resize((45, 30), Image.Resampling.BICUBIC)) < 3
    assert treat(treated.data, rule=rule, short_side=30).data == treated.data


def test_never_enlarges():
    for short_side in (60, 61, 1000):
        assert treat(encode(PHOTO), rule="keep", short_side=short_side).data == encode(PHOTO)


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    data = encode(Image.fromarray(stripes), format="PNG")
    shrunk = np.asarray(open_image(treat(data, rule="keep", short_side=16).data), int)
    assert abs(shrunk.mean() - 127.5) < 6
    assert shrunk.std() < 12


def test_shrinks_after_turning():
    data = encode(PHOTO, exif=exif(6))
    assert open_image(treat(data, rule="convert", short_side=30).data).size == (30, 45)
    # as it is stored, where the bytes would otherwise stay: readers ignore the orientation
    assert open_image(treat(data, rule="keep", short_side=30).data).size == (45, 30)


def test_repairs_as_tfds_does():
    for data, change in (
        (encode(PHOTO.convert("CMYK")), "CMYK to RGB"),
        (encode(PHOTO, format="PNG"), "PNG to JPEG"),
    ):
        treated = treat(data, rule="repair")
        assert treated.change == change
        assert (open_image(treated.data).format, open_image(treated.data).mode) == ("JPEG", "RGB")
        assert difference(treated.data, PHOTO) < 3


@pytest.mark.parametrize("rule", ["keep", "repair", "convert"])
@pytest.mark.parametrize("short_side", [None, 20])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode(PHOTO)[:-200], "not a whole image|damaged or cut off"),
        (encode(PHOTO)[:-2], "not a whole image|damaged or cut off"),
        (encode(PHOTO)[:3], "not an image"),
        *((encode(PHOTO)[:n], "cannot be decoded|not a") for n in (20, 60, 100, 165, 300)),
        (encode(PHOTO, format="PNG")[:-200], "not a whole image"),
        (encode(PHOTO, format="PNG")[:30], "not an image|not a whole image"),
        (encode(PHOTO, format="BMP")[:-200], "not a whole image"),
        (b"", "the file is empty"),
        (b"not an image", "not an image: it begins with b'not an i'"),
        (b"<html>404</html>" * 100, "not an image: it begins with b'<html>40'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image: it begins with"),
        (bytes(10_000), "not an image: it begins with"),
        (encode(Image.new("F", (8, 8)), format="TIFF"), "floating-point numbers"),
        (encode(Image.new("I", (8, 8)), format="TIFF"), "32-bit numbers"),
    ],
)
def test_bad_images_are_refused(data, message, rule, short_side):
    with pytest.raises(ValueError, match=message) as error:
        treat(data, rule=rule, short_side=short_side)
    assert "KeyError" not in str(error.value)


@pytest.mark.parametrize("rule", ["keep", "convert"])
def test_refuses_huge_images_without_decoding_them(rule):
    bomb = bytearray(encode(Image.new("L", (8, 8)), format="PNG"))
    bomb[16:24] = (50_000).to_bytes(4) + (50_000).to_bytes(4)
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    jpeg = bytearray(encode(PHOTO))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = (65_000).to_bytes(2) + (65_000).to_bytes(2)
    for data in (bytes(bomb), bytes(jpeg)):
        with pytest.raises(ValueError, match="too large"):
            treat(data, rule=rule)


@pytest.mark.parametrize("rule", ["keep", "convert"])
def test_a_few_superfluous_bytes_are_kept_and_reported(rule):
    data = encode(PHOTO)
    damaged = data[:-2] + b"\x00" * 16 + data[-2:]
    treated = treat(damaged, rule=rule)
    assert treated.data == damaged
    assert "extraneous bytes" in treated.damage
    images.decode(damaged)


@pytest.mark.parametrize("short_side", [None, 100])
@pytest.mark.parametrize("zeroed", [False, True])
def test_an_image_that_is_mostly_missing_is_refused(zeroed, short_side):
    """Readers accept it; those of the official ImageNet are kept and reported."""
    whole = encode(Image.fromarray(picture(200, 300)))
    third = len(whole) // 3
    damaged = whole[:third] + (bytes(third) + whole[2 * third :] if zeroed else b"\xff\xd9")
    images.decode(damaged)
    with pytest.raises(ValueError, match="damaged or cut off"):
        treat(damaged, rule="convert", short_side=short_side)
    assert treat(damaged, rule="keep").damage
    assert treat(damaged, rule="keep").data == damaged
