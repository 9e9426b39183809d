"""Augmentations: each does what it says, exactly or as Pillow does it, and nothing else."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
from PIL import ImageEnhance, ImageOps

from pnoise_jax.data.image import pixel_operations as operations
from pnoise_jax.data.image.augmentations import (
    ColorJitter,
    Flip,
    PixelStatistics,
    RandomErasing,
    RandomShift,
)
from pnoise_jax.data.image.rand_augment import OPERATIONS, RandAugment
from tests.data.image.pictures import picture

STATISTICS = PixelStatistics(mean=(0.1, 0.5, 0.9), std=(0.1, 0.2, 0.3))
MEAN = (26, 128, 230)  # of 255, rounded

COLOURS = picture(60, 80)
GRAYS = picture(60, 80, 1)
PLAIN = np.full((60, 80, 3), (10, 120, 250), np.uint8)
EDGES = {"colours": COLOURS, "gray": GRAYS, "plain": PLAIN, "one pixel": picture(1, 1)}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pillow(pixels: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def assert_pillows(actual: np.ndarray, expected: PIL.Image.Image, *, atol: int = 0) -> None:
    expected = np.asarray(expected).reshape(actual.shape)
    np.testing.assert_allclose(actual.astype(int), expected.astype(int), atol=atol)


# Pixel operations


@pytest.mark.parametrize("kind", EDGES)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7, 2.8])
def test_enhancements_are_pillows(kind, factor):
    pixels = EDGES[kind]
    image = pillow(pixels)
    assert_pillows(
        operations.brightness(pixels, factor), ImageEnhance.Brightness(image).enhance(factor)
    )
    assert_pillows(
        operations.contrast(pixels, factor), ImageEnhance.Contrast(image).enhance(factor), atol=1
    )
    # OpenCV rounds where Pillow truncates, and its gray differs in the last digits.
    assert_pillows(
        operations.sharpness(pixels, factor), ImageEnhance.Sharpness(image).enhance(factor), atol=2
    )
    assert_pillows(
        operations.saturation(pixels, factor), ImageEnhance.Color(image).enhance(factor), atol=3
    )


@pytest.mark.parametrize("kind", EDGES)
def test_tables_are_pillows(kind):
    pixels = EDGES[kind]
    image = pillow(pixels)
    assert_pillows(operations.auto_contrast(pixels), ImageOps.autocontrast(image), atol=1)
    assert_pillows(operations.equalize(pixels), ImageOps.equalize(image))
    assert_pillows(operations.invert(pixels), ImageOps.invert(image))
    for bits in (1, 4, 6, 8):
        assert_pillows(operations.posterize(pixels, bits), ImageOps.posterize(image, bits))
    for threshold in (0, 100, 256):
        assert_pillows(operations.solarize(pixels, threshold), ImageOps.solarize(image, threshold))
    np.testing.assert_array_equal(operations.posterize(pixels, 0), 0 * pixels)


def test_solarize_add_brightens_the_dark():
    values = np.array([0, 100, 127, 128, 255], np.uint8).reshape(1, 5, 1)
    actual = operations.solarize_add(values, 140)
    assert actual.ravel().tolist() == [140, 240, 255, 128, 255]


def test_hue_turns_colours_around():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    for shift, colour in ((0, (255, 0, 0)), (1 / 3, (0, 255, 0)), (-1 / 3, (0, 0, 255))):
        actual = operations.hue(red, shift)[0, 0]
        np.testing.assert_allclose(actual.astype(int), colour, atol=6)
    np.testing.assert_array_equal(operations.hue(GRAYS, 0.3), GRAYS)


def test_mirror_and_warps_move_pixels():
    pixels = COLOURS
    np.testing.assert_array_equal(operations.mirror(pixels), pixels[:, ::-1])
    moved = operations.warp(pixels, np.array([[1, 0, 10], [0, 1, -5]]), (1, 2, 3))
    np.testing.assert_array_equal(moved[5:, :-10], pixels[:-5, 10:])
    assert (moved[:5] == (1, 2, 3)).all()
    assert (moved[:, -10:] == (1, 2, 3)).all()
    square = pixels[:60, :60]
    turned = operations.warp(square, operations.rotation(90, 60, 60), (0, 0, 0))
    assert any((turned == np.rot90(square, k)).all() for k in (1, 3))
    np.testing.assert_array_equal(
        operations.warp(pixels, operations.rotation(0, 60, 80), (0, 0, 0)), pixels
    )


def test_colour_needs_one_or_three_channels():
    for channels in (2, 4):
        pixels = picture(8, 8, channels)
        for call in (
            lambda x: ColorJitter()(x, rng(), PixelStatistics((0.5,), (0.5,))),
            lambda x: RandAugment()(x, rng(), PixelStatistics((0.5,), (0.5,))),
            lambda x: operations.saturation(x, 0.5),
            lambda x: operations.hue(x, 0.5),
        ):
            with pytest.raises(ValueError, match=f"this one has {channels}"):
                call(pixels)


# Augmentations


def test_statistics_hold_for_every_channel():
    assert STATISTICS.fill(3) == MEAN
    assert PixelStatistics((0.5,), (0.5,)).fill(4) == (128,) * 4
    with pytest.raises(ValueError, match=r"has 2 channels, but data\.mean and data\.std have 3"):
        STATISTICS.fill(2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flip_mirrors_a_share_of_the_images(share):
    actual = [Flip(share)(COLOURS, rng(seed), STATISTICS) for seed in range(300)]
    mirrored = [(x == COLOURS[:, ::-1]).all() for x in actual]
    assert all(m or (x == COLOURS).all() for m, x in zip(mirrored, actual, strict=True))
    assert abs(np.mean(mirrored) - share) < 0.1 * (0 < share < 1) + 1e-9


def test_random_shift_draws_every_shift_and_repeats_the_edge():
    pixels = picture(6, 5)
    rows, columns = (np.arange(size) for size in pixels.shape[:2])
    expected = {
        pixels[np.clip(rows - down, 0, 5)][:, np.clip(columns - right, 0, 4)].tobytes()
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    generator = rng()
    actual = {RandomShift(1)(pixels, generator, STATISTICS).tobytes() for _ in range(200)}
    assert actual == expected
    assert len(actual) == 9
    assert RandomShift(9)(pixels, rng(), STATISTICS).shape == pixels.shape


@pytest.mark.parametrize("pixels", [0, -1, 1.5, True])
def test_random_shift_refuses_other_than_whole_pixels(pixels):
    with pytest.raises(ValueError, match="a whole number of at least 1"):
        RandomShift(pixels)


@pytest.mark.parametrize("pixels", [COLOURS, GRAYS])
def test_color_jitter_of_nothing_is_the_image_itself(pixels):
    actual = ColorJitter(0, 0, 0, 0)(pixels, rng(), STATISTICS)
    np.testing.assert_array_equal(actual, pixels)


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue"])
def test_color_jitter_changes_what_it_says(field):
    """Each field changes one of a picture's mean, spread, colourfulness and hues."""
    nothing = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    x = {**nothing, field: 0.4}
    soft = (128 + (COLOURS.astype(float) - 128) / 3).astype(np.uint8)  # nothing is clipped
    ratios = []
    for seed in range(200):
        actual = ColorJitter(**x)(soft, rng(seed), STATISTICS).astype(float)
        measures = {
            "brightness": lambda p: p.mean(),
            "contrast": lambda p: p.std(),
            "saturation": lambda p: p.std(axis=-1).mean(),
            "hue": lambda p: p[..., 0].mean(),
        }
        ratios.append(measures[field](actual) / measures[field](soft.astype(float)))
        if field == "contrast":
            np.testing.assert_allclose(actual.mean(), soft.mean(), atol=4)
        if field == "saturation":
            np.testing.assert_allclose(actual.mean(axis=-1), soft.mean(axis=-1), atol=12)
    if field == "hue":
        assert np.std(ratios) > 0.01
    else:  # factors are even in [0.6, 1.4]
        deciles = np.linspace(0.1, 0.9, 9)
        np.testing.assert_allclose(np.quantile(ratios, deciles), 0.6 + 0.8 * deciles, atol=0.1)


def test_color_jitter_has_a_random_order():
    jitter = ColorJitter(brightness=0.9, contrast=0.9, saturation=0)
    generator = rng()
    factors = [0.1 + 1.8 * generator.random() for _ in range(2)]
    bright = lambda p: operations.brightness(p, factors[0])  # noqa: E731
    strong = lambda p: operations.contrast(p, factors[1])  # noqa: E731
    first, second = strong(bright(COLOURS)), bright(strong(COLOURS))
    assert (first != second).any()

    class Fixed:
        """A generator whose order is chosen."""

        def __init__(self, order):
            self._numbers, self._order = iter([(f - 0.1) / 1.8 for f in factors]), order

        def random(self):
            return next(self._numbers)

        def permutation(self, n):
            assert n == 2
            return self._order

    np.testing.assert_array_equal(jitter(COLOURS, Fixed([0, 1]), STATISTICS), first)
    np.testing.assert_array_equal(jitter(COLOURS, Fixed([1, 0]), STATISTICS), second)


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_random_erasing_covers_one_rectangle(fill):
    erase = RandomErasing(1, scale=(0.1, 0.3), ratio=(0.5, 2), fill=fill)
    black = np.zeros((60, 80, 3), np.uint8)
    areas = []
    for seed in range(200):
        actual = erase(black, rng(seed), STATISTICS)
        covered = (actual != 0).any(axis=-1)
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        areas.append(height * width / 4800)
        assert 0.45 < height / width < 2.2
        inside = actual[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if fill == "mean":
            assert (inside == MEAN).all()
        else:
            green = inside[..., 1] / 255  # the others are partly clipped at black or white
            np.testing.assert_allclose(green.mean(), 0.5, atol=0.04)
            np.testing.assert_allclose(green.std(), 0.2, atol=0.03)
    assert not black.any()
    deciles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(areas, deciles), 0.1 + 0.2 * deciles, atol=0.03)


def test_random_erasing_erases_a_share_of_the_images():
    actual = [RandomErasing(0.25)(COLOURS, rng(seed), STATISTICS) for seed in range(400)]
    assert abs(np.mean([(x != COLOURS).any() for x in actual]) - 0.25) < 0.07
    never = RandomErasing(1, scale=(1, 1))(COLOURS, rng(), STATISTICS)  # no smaller one fits
    np.testing.assert_array_equal(never, COLOURS)


# RandAugment


def test_rand_augment_has_the_sixteen_operations():
    assert len(OPERATIONS) == 16


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", EDGES)
def test_operations_keep_the_shape_and_their_input(name, kind):
    pixels = EDGES[kind].copy()
    fill = MEAN[: pixels.shape[2]]
    for level in (0, 0.9, 1.5, 3):
        for seed in range(4):
            actual = OPERATIONS[name](pixels, level, rng(seed), fill)
            assert actual.shape == pixels.shape
            assert actual.dtype == np.uint8
    np.testing.assert_array_equal(pixels, EDGES[kind])


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_change_the_picture(name):
    actual = OPERATIONS[name](COLOURS, 0.9, rng(), MEAN)
    assert (actual != COLOURS).mean() > 0.01


GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y", "cutout")


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations_grow_with_the_magnitude_and_fill_with_the_mean(name):
    white = np.full((224, 224, 3), 255, np.uint8)
    shares = []
    for level in (0, 0.5, 1, 1.5):
        images = np.stack([OPERATIONS[name](white, level, rng(seed), MEAN) for seed in range(20)])
        filled = (images == MEAN).all(axis=-1)
        shares.append(filled.mean())
        assert (images[~filled] == 255).all()
    assert shares[0] == 0
    assert shares == sorted(set(shares))


def test_magnitudes_are_big_visions():
    """At 224 pixels and magnitude 10, the original's strongest."""
    image = picture(224, 224)
    cases = {
        "translate_x": lambda s: operations.warp(
            image, np.array([[1, 0, 100 * s], [0, 1, 0]]), MEAN
        ),
        "translate_y": lambda s: operations.warp(
            image, np.array([[1, 0, 0], [0, 1, 100 * s]]), MEAN
        ),
        "shear_x": lambda s: operations.warp(image, np.array([[1, 0.3 * s, 0], [0, 1, 0]]), MEAN),
        "shear_y": lambda s: operations.warp(image, np.array([[1, 0, 0], [0.3 * s, 1, 0]]), MEAN),
        "rotate": lambda s: operations.warp(image, operations.rotation(30 * s, 224, 224), MEAN),
        "posterize": lambda s: operations.posterize(image, 4),
        "solarize": lambda s: image,
        "solarize_add": lambda s: operations.solarize_add(image, 110),
        "color": lambda s: operations.saturation(image, 1.9),
        "contrast": lambda s: operations.contrast(image, 1.9),
        "brightness": lambda s: operations.brightness(image, 1.9),
        "sharpness": lambda s: operations.sharpness(image, 1.9),
    }
    for name, expected in cases.items():
        actual = {OPERATIONS[name](image, 1, rng(seed), MEAN).tobytes() for seed in range(20)}
        assert actual == {expected(1).tobytes(), expected(-1).tobytes()}, name
    covered = [(OPERATIONS["cutout"](image, 1, rng(s), (0, 0, 0)) == 0).all(-1) for s in range(50)]
    assert max(each.sum() for each in covered) == 80 * 80


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_cutout_around_any_place_ends_at_the_edges(share):
    """It covers 40 of 224 pixels to each side of the drawn place."""

    class Fixed:
        def random(self):
            return share

    image = np.full((224, 448, 3), 255, np.uint8)
    covered = (OPERATIONS["cutout"](image, 1, Fixed(), MEAN) == MEAN).all(-1)
    expected = np.zeros((224, 448), bool)
    y, x = np.ogrid[:224, :448]
    row, column = int(224 * share), int(448 * share)
    expected[(y >= row - 40) & (y < row + 40) & (x >= column - 80) & (x < column + 80)] = True
    np.testing.assert_array_equal(covered, expected)


def test_rand_augment_draws_all_operations_evenly(monkeypatch):
    drawn = []
    for name in OPERATIONS:
        monkeypatch.setitem(
            OPERATIONS, name, lambda x, level, g, f, name=name: drawn.append(name) or x
        )
    generator = rng()
    for _ in range(1600):
        RandAugment(num_ops=2)(COLOURS, generator, STATISTICS)
    assert len(drawn) == 3200
    counts = [drawn.count(name) for name in OPERATIONS]
    assert min(counts) > 140
    assert max(counts) < 260


@pytest.mark.parametrize(("std", "expected"), [(0, 0), (0.5, 0.5)])
def test_rand_augment_varies_the_magnitude(std, expected, monkeypatch):
    levels = []
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda x, level, g, f: levels.append(level) or x)
    augment = RandAugment(num_ops=3, magnitude=9, magnitude_std=std)
    generator = rng()
    for _ in range(300):
        augment(COLOURS, generator, STATISTICS)
    assert abs(10 * np.mean(levels) - 9) < 0.1
    assert abs(10 * np.std(levels) - expected) < 0.05
    strong = dataclasses.replace(augment, magnitude=30, magnitude_std=20)
    levels.clear()
    for _ in range(50):
        strong(COLOURS, generator, STATISTICS)
    assert 0 <= min(levels) <= max(levels) == 3
