"""Where the content of a crop is: in the box, to a tenth of a pixel."""

import cv2
import numpy as np
import PIL.Image
import pytest

from pnoise_jax.data.image import images
from pnoise_jax.data.image.augmentations import Flip, PixelStatistics
from pnoise_jax.data.image.crops import RandomResizedCrop, ResizeCrop
from tests.data.image.pictures import encode, jpeg

HEIGHT, WIDTH = 501, 707  # no multiples of anything


def texture() -> np.ndarray:
    """Smooth and random, without noise: a displacement shows everywhere."""
    noise = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 10)
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).round().astype(np.uint8)


TEXTURE = texture()
FILES = {
    "jpeg 4:4:4": jpeg(TEXTURE, quality=95, subsampling=0),
    "jpeg": jpeg(TEXTURE, quality=90),
    "jpeg, progressive": jpeg(TEXTURE, quality=90, progressive=True),
    "jpeg, gray": encode(PIL.Image.fromarray(TEXTURE).convert("L"), "JPEG", quality=95),
    "jpeg, CMYK": encode(PIL.Image.fromarray(TEXTURE).convert("CMYK"), "JPEG", quality=95),
    "png": encode(PIL.Image.fromarray(TEXTURE), "PNG"),
    "pixels": TEXTURE,
}


def exact(pixels: np.ndarray, box: images.Box, size: tuple[int, int]) -> np.ndarray:
    """The same resizing in float32, of the whole image, decoded exactly."""
    top, left, height, width = box
    part = pixels[top : top + height, left : left + width].astype(np.float32)
    halved = height >= 2 * size[0] and width >= 2 * size[1]
    return cv2.resize(
        part, size[::-1], interpolation=cv2.INTER_AREA if halved else cv2.INTER_LINEAR
    )


def displacement(actual: np.ndarray, expected: np.ndarray) -> float:
    """By least squares, in pixels: actual = expected + d * its gradient + constant."""
    expected, actual = expected.astype(float), actual.astype(float)
    inside = np.s_[1:-1, 1:-1]
    down, right = (slope[inside].ravel() for slope in np.gradient(expected, axis=(0, 1)))
    slopes = np.stack([down, right, np.ones_like(down)], axis=1)
    return np.abs(np.linalg.lstsq(slopes, (actual - expected)[inside].ravel())[0][:2]).max()


def boxes(number: int, factor: int) -> list[tuple[images.Box, tuple[int, int]]]:
    """Boxes and target sizes for which 1/`factor` of the size is decoded."""
    generator = np.random.default_rng(factor)
    rows = []
    while len(rows) < number:
        size = tuple(map(int, generator.choice([16, 24, 32, 48, 64, 96, 112, 160, 224], 2)))
        top, left, height, width = RandomResizedCrop().box(HEIGHT, WIDTH, generator)
        is_same = images._shrink_factor(height, width, size) == factor
        if is_same and height > size[0] / 2 and width > size[1] / 2:
            rows.append(((top, left, height, width), size))
    return rows


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", FILES)
def test_training_crops_are_where_the_box_is(kind, factor):
    whole = images.decode(FILES[kind])
    for box, size in boxes(40, factor):
        actual = images.crop_and_resize(FILES[kind], box, size, antialias=False)
        assert displacement(actual, exact(whole, box, size)) < 0.1, (box, size)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_no_more_pixels_are_computed_than_the_smaller_image_has(factor, monkeypatch):
    """The result's pixels are their means."""
    computed = []
    warp = cv2.warpAffine

    def watched(pixels, moves, size, **options):
        computed.append(size)
        return warp(pixels, moves, size, **options)

    monkeypatch.setattr(cv2, "warpAffine", watched)
    for (top, left, height, width), size in boxes(40, factor):
        computed.clear()
        box = (top, left, height, width)
        images.crop_and_resize(FILES["jpeg"], box, size, antialias=False)
        for columns, rows in computed:
            assert size[0] <= rows <= max(size[0], height / factor)
            assert size[1] <= columns <= max(size[1], width / factor)
    assert computed


def test_the_measure_sees_a_displacement():
    """For a box that is off by half a pixel of the result."""
    whole, size = TEXTURE, (64, 64)
    actual = exact(whole, (104, 204, 256, 256), size)
    assert displacement(actual, exact(whole, (102, 204, 256, 256), size)) > 0.4
    assert displacement(actual, exact(whole, (104, 206, 256, 256), size)) > 0.4


def test_a_box_that_was_once_taken_too_far_to_the_left():
    """15..150 was taken as 8..136."""
    actual = images.crop_and_resize(FILES["jpeg"], (15, 15, 135, 135), (16, 16), antialias=False)
    whole = images.decode(FILES["jpeg"])
    assert displacement(actual, exact(whole, (15, 15, 135, 135), (16, 16))) < 0.05
    assert displacement(actual, exact(whole, (8, 8, 128, 128), (16, 16))) > 0.4


@pytest.mark.parametrize("kind", FILES)
def test_aligned_boxes_are_resized_as_before(kind):
    """Nothing is interpolated if it is not needed: they equal the decoded part."""
    actual = images.crop_and_resize(FILES[kind], (16, 32, 256, 320), (32, 40), antialias=False)
    whole = images.decode(FILES[kind])
    expected = exact(whole, (16, 32, 256, 320), (32, 40))
    assert np.abs(actual.astype(float) - expected).mean() < 1.5


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_flip_mirrors_the_crop(kind):
    box, size = (37, 91, 333, 275), (64, 48)
    actual = images.crop_and_resize(FILES[kind], box, size, antialias=False)
    flipped = Flip(probability=1)(actual, np.random.default_rng(0), PixelStatistics((0.5,), (0.5,)))
    mirrored = images.decode(FILES[kind])[:, ::-1]
    top, left, height, width = box
    expected = exact(mirrored, (top, WIDTH - left - width, height, width), size)
    assert displacement(flipped, expected) < 0.1


@pytest.mark.parametrize("crop_ratio", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("kind", ["jpeg", "jpeg, gray", "png", "pixels"])
def test_resize_crop_takes_the_centre(kind, crop_ratio):
    size = (96, 96)
    actual = ResizeCrop(crop_ratio)(FILES[kind], None, size)
    whole = PIL.Image.fromarray(images.decode(FILES[kind]))
    short = int(96 / crop_ratio)
    long = int(short * WIDTH / HEIGHT)
    top, left = round((short - 96) / 2), round((long - 96) / 2)
    step_y, step_x = HEIGHT / short, WIDTH / long
    box = (left * step_x, top * step_y, (left + 96) * step_x, (top + 96) * step_y)
    expected = np.asarray(whole.resize((96, 96), PIL.Image.Resampling.BICUBIC, box=box))
    assert displacement(actual, expected) < 0.1
