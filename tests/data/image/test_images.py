"""Decoding, cropping and resizing: against Pillow, and on every kind of file."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest

from pnoise_jax.data.image import headers, images
from tests.data.image.pictures import claimed_size, encode, files, jpeg, picture

FILES = files()
JPEGS = {name: encoded for name, encoded in FILES.items() if name.startswith("jpeg")}


def by_pillow(encoded: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(encoded)).convert("RGB"))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).mean()


@pytest.mark.parametrize("kind", FILES)
def test_the_size_is_read_without_decoding(kind, monkeypatch):
    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", None)
    monkeypatch.setattr(PIL.Image.Image, "load", None)
    assert images.image_size(FILES[kind]) == (40, 52)


@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_are_decoded_as_pillow_decodes_them(kind):
    np.testing.assert_array_equal(images.decode(JPEGS[kind]), by_pillow(JPEGS[kind]))


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_becomes_rgb(kind):
    decoded = images.decode(FILES[kind])
    assert decoded.dtype == np.uint8
    expected = picture(40, 52)
    if "gray" in kind or "16 bits" in kind:
        expected = np.repeat(
            np.asarray(PIL.Image.fromarray(expected).convert("L"))[..., None], 3, 2
        )
    lossless = kind in ("png", "png, gray", "png, 16 bits", "bmp", "webp", "tiff", "png, opacity")
    rough = 130 if "one bit" in kind else 30  # few colours
    assert difference(decoded, expected) <= (0 if lossless else rough)


@pytest.mark.parametrize(
    ("kind", "channels"), [("gray", 1), ("gray", None), ("gray", 3), ("RGB", None), ("RGB", 3)]
)
def test_jpegs_are_decoded_by_the_fast_decoder(kind, channels, monkeypatch):
    encoded = JPEGS["jpeg, gray" if kind == "gray" else "jpeg"]
    image = images.Encoded(encoded, channels)
    expected = images.conversion.decode(encoded, channels)
    monkeypatch.setattr(images.conversion, "decode", None)
    np.testing.assert_array_equal(images.decode(image), expected)


def test_exif_orientation_is_ignored():
    np.testing.assert_array_equal(images.decode(JPEGS["jpeg, EXIF"]), images.decode(JPEGS["jpeg"]))


def test_a_warning_of_the_decoder_is_not_an_error():
    broken = bytearray(JPEGS["jpeg"])
    broken[-12:-8] = b"\0\0\0\0"
    with pytest.raises(ValueError, match="Corrupt"):
        images.simplejpeg.decode_jpeg(bytes(broken))
    np.testing.assert_array_equal(images.decode(bytes(broken)), by_pillow(bytes(broken)))


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_files_raise(kind, share):
    cut = FILES[kind][: int(share * len(FILES[kind]))]
    for antialias in (True, False):
        with pytest.raises(ValueError, match="image"):
            images.crop_and_resize(cut, None, (8, 8), antialias=antialias)
    with pytest.raises(ValueError, match="image"):
        images.decode(cut)


def test_files_that_are_not_images_raise():
    for encoded in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"not an image" * 99, bytes(1000)):
        with pytest.raises(ValueError, match="not an image"):
            images.image_size(encoded)
        with pytest.raises(ValueError, match="not an image"):
            images.decode(encoded)


def test_too_many_pixels_raise_before_memory_is_taken():
    huge = claimed_size(JPEGS["jpeg"], 60_000, 60_000)
    with pytest.raises(ValueError, match="60000 x 60000 pixels is too large"):
        images.image_size(huge)
    with pytest.raises(ValueError, match="too large"):
        images.crop_and_resize(huge, None, (8, 8), antialias=False)


def test_arrays_come_back_as_they_are():
    pixels = picture(5, 6, 2)
    assert images.decode(pixels) is pixels
    assert images.image_size(pixels) == (5, 6)


@pytest.mark.parametrize(
    "wrong", [np.zeros((5, 6)), np.zeros((5, 6, 3)), np.zeros((0, 6, 3), "u1")]
)
def test_other_arrays_raise(wrong):
    for call in (images.decode, images.image_size):
        with pytest.raises(ValueError, match="uint8 array"):
            call(wrong)


# Cropping and resizing


@pytest.mark.parametrize("kind", FILES)
def test_without_antialiasing_the_part_is_right(kind):
    """The fast way stops where the crop ends; what it decodes must be the same picture."""
    whole = images.decode(FILES[kind])
    for box in ((0, 0, 40, 52), (0, 0, 16, 16), (3, 5, 20, 31), (24, 8, 16, 16), (39, 51, 1, 1)):
        top, left, height, width = box
        actual = images.crop_and_resize(FILES[kind], box, (height, width), antialias=False)
        expected = whole[top : top + height, left : left + width]
        assert difference(actual, expected) < 6, box


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_stopping_early_changes_no_pixel(subsampling, progressive):
    pixels = picture(90, 70)
    encoded = jpeg(pixels, quality=90, subsampling=subsampling, progressive=progressive)
    whole = images.simplejpeg.decode_jpeg(encoded, fastdct=True, fastupsample=True)
    for bottom in (1, 15, 16, 17, 33, 89, 90):
        actual = images.crop_and_resize(encoded, (0, 0, bottom, 70), (bottom, 70), antialias=False)
        np.testing.assert_array_equal(actual, whole[:bottom])


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 11])
def test_large_crops_are_shrunk_while_they_are_decoded(factor, monkeypatch):
    encoded = jpeg(picture(400, 480), quality=95)
    box = (17, 33, 30 * factor, 40 * factor)
    shapes = []
    decode = images.simplejpeg.decode_jpeg

    def spy(*args, **options):
        shapes.append((decoded := decode(*args, **options)).shape)
        return decoded

    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", spy)
    actual = images.crop_and_resize(encoded, box, (30, 40), antialias=False)
    shrunk = next(f for f in (8, 4, 2) if f <= factor)
    assert shapes[0][1] == 480 // shrunk
    expected = images.crop_and_resize(encoded, box, (30, 40), antialias=True)
    assert difference(actual, expected) < 10  # a box is rounded to whole pixels of the shrunk image


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(7, 5), (20, 31), (40, 52), (50, 64)])
def test_arrays_of_any_number_of_channels(channels, antialias, size):
    pixels = picture(40, 52, channels)
    before = pixels.copy()
    actual = images.crop_and_resize(pixels, None, size, antialias=antialias)
    assert actual.shape == (*size, channels)
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(pixels, before)
    for channel in range(channels):  # each as a single channel
        single = images.crop_and_resize(
            pixels[..., channel : channel + 1], None, size, antialias=antialias
        )
        np.testing.assert_allclose(actual[..., channel], single[..., 0], atol=1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 5), (50, 64)])
def test_antialiased_resizing_is_pillows(interpolation, size):
    encoded = FILES["jpeg"]
    actual = images.crop_and_resize(
        encoded, (3, 5, 30, 41), size, antialias=True, interpolation=interpolation
    )
    mode = PIL.Image.Resampling[interpolation.upper()]
    part = PIL.Image.open(io.BytesIO(encoded)).crop((5, 3, 46, 33))
    np.testing.assert_array_equal(actual, np.asarray(part.resize(size[::-1], mode)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "resized"),
    [(200, 5, (2280, 57)), (5, 200, (57, 2280)), (893, 47, (817, 43))],
)
def test_thin_images_are_resized_as_others_are(height, width, resized, interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    top, left = (side // 2 - 15 for side in resized)
    found = images.resize_then_crop(
        pixels, resized, (top, left, 30, 30), interpolation=interpolation
    )
    whole = PIL.Image.fromarray(pixels).resize(resized[::-1], images.INTERPOLATIONS[interpolation])
    np.testing.assert_array_equal(found, np.asarray(whole)[top : top + 30, left : left + 30])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_that_would_become_huge_is_resized_only_in_part(channels, monkeypatch):
    """The result is the same."""
    pixels = picture(20, 400, channels)
    box = (1, 300, 31, 25)

    def resize():
        return images.resize_then_crop(pixels, (32, 640), box, interpolation="bicubic")

    whole = resize()
    monkeypatch.setattr(images, "_MOST_RESIZED", 32 * 640 - 1)
    monkeypatch.setattr(images, "_crop", None)
    assert resize().shape == whole.shape == (31, 25, channels)
    np.testing.assert_allclose(resize().astype(int), whole, atol=1)


def test_where_both_sides_shrink_to_half_no_pixel_is_skipped():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::4] = 200  # linear interpolation between two pixels would miss or overstate them
    actual = images.crop_and_resize(stripes, None, (16, 16), antialias=False)
    np.testing.assert_array_equal(actual, np.full((16, 16, 1), 50))


@pytest.mark.parametrize("box", [(0, 0, 41, 52), (-1, 0, 5, 5), (0, 48, 5, 5), (3, 3, 0, 5)])
def test_a_box_beyond_the_image_raises(box):
    for image in (FILES["jpeg"], FILES["png"], picture(40, 52)):
        for antialias in (True, False):
            with pytest.raises(ValueError, match="not inside the image of 40 x 52"):
                images.crop_and_resize(image, box, (8, 8), antialias=antialias)


def test_fast_resizing_knows_only_bilinear():
    with pytest.raises(ValueError, match="bicubic"):
        images.crop_and_resize(
            FILES["jpeg"], None, (8, 8), antialias=False, interpolation="bicubic"
        )


def test_threads_get_the_same_pixels():
    encoded = [jpeg(picture(90, 120, seed=i), quality=90) for i in range(8)]

    def load(i):
        return images.crop_and_resize(encoded[i % 8], (5, 7, 60, 80), (32, 32), antialias=False)

    expected = [load(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for i, actual in enumerate(pool.map(load, range(64))):
            np.testing.assert_array_equal(actual, expected[i % 8])


def test_a_png_of_many_colours_keeps_them():
    pixels = picture(20, 30)
    np.testing.assert_array_equal(images.decode(encode(PIL.Image.fromarray(pixels), "PNG")), pixels)


def jpeg_frame(height: int, width: int, components: int) -> bytes:
    """The beginning of a JPEG, up to its frame header."""
    sides = height.to_bytes(2) + width.to_bytes(2)
    return b"\xff\xd8\xff\xc0\x00\x11\x08" + sides + bytes([components]) + bytes(9)


@pytest.mark.parametrize("components", [1, 3, 4])
def test_the_limit_of_an_image_is_in_bytes_of_its_components(components):
    """Decoded to at least RGB."""
    width = 50_000
    height = headers.MAX_BYTES // (max(3, components) * width)
    assert headers.jpeg_header(jpeg_frame(height, width, components))[:2] == (height, width)
    with pytest.raises(images.ImageError, match="too large"):
        headers.jpeg_header(jpeg_frame(height + 1, width, components))


@pytest.mark.parametrize("start", [b"\x00\x00", b"\xff\xd7", b"\xff\xd9"])
def test_a_header_that_does_not_begin_like_a_jpeg_is_none(start):
    assert headers.jpeg_header(jpeg_frame(10, 10, 3)) is not None
    assert headers.jpeg_header(start + jpeg_frame(10, 10, 3)[2:]) is None
