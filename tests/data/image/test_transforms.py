"""Transforms by name: their results, the parity of evaluation, and texts that are refused."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pnoise_jax.data.image import images
from pnoise_jax.data.image.crops import RandomResizedCrop
from pnoise_jax.data.image.transforms import create_transform, list_transforms
from tests.data.image.pictures import files, jpeg, picture

GOLDEN = np.load(Path(__file__).parent / "golden" / "evaluation.npz", allow_pickle=False)
CASES = [name for name in GOLDEN.files if not name.startswith("jpeg/")]

FILES = files()
ODD = {
    "1 x 1": jpeg(picture(1, 1)),
    "long": jpeg(picture(3000, 10)),
    "long, too": jpeg(picture(10, 3000)),
    "pixels": picture(40, 52),
    "gray pixels": picture(40, 52, 1),
    "digit": picture(8, 8, 1),
    "one pixel": picture(1, 1, 1),
}
CROPS = (
    *("none", "resize_square", "resize_crop", "random_resized_crop"),
    *("square_crop", "square_random_crop", "square_random_resized_crop"),
)
AUGMENTATIONS = (
    "flip(1)",
    "color_jitter(hue=0.1)",
    "rand_augment(3, 12, magnitude_std=2)",
    "random_erasing(1)",
    "random_erasing(1, fill='noise')",
)


def create(text: str, *, size=(24, 24), train=True, mean=(0.5,), std=(0.5,)):
    field = "data.train_transform" if train else "data.test_transform"
    return create_transform(text, size=size, mean=mean, std=std, train=train, field=field)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Evaluation


@pytest.mark.parametrize("case", CASES)
def test_evaluation_equals_torchvision_and_timm(case):
    text, size, number = case.split("/")
    size = tuple(map(int, size.split("x")))
    transform = create(text, size=size, train=False)
    encoded = GOLDEN[f"jpeg/{number}"].tobytes()
    np.testing.assert_array_equal(transform(encoded), GOLDEN[case])
    np.testing.assert_array_equal(transform(images.decode(encoded)), GOLDEN[case])


def test_none_keeps_the_wanted_size_and_resizes_the_rest():
    pixels = picture(24, 24, 1)
    np.testing.assert_array_equal(create("none")(pixels), pixels)
    encoded = jpeg(picture(24, 24))
    np.testing.assert_array_equal(create("none")(encoded), images.decode(encoded))
    other = FILES["jpeg"]
    np.testing.assert_array_equal(create("none")(other), create("resize_square")(other))


# Every image through every transform


@pytest.mark.parametrize("kind", [*FILES, *ODD])
@pytest.mark.parametrize("size", [(24, 24), (19, 45)])
def test_every_image_goes_through_every_transform(kind, size):
    image = {**FILES, **ODD}[kind]
    before = image.copy() if isinstance(image, np.ndarray) else None
    channels = 3 if before is None else before.shape[2]
    for crop in CROPS:
        for text in (crop, "|".join((crop, *AUGMENTATIONS))):
            transform = create(text, size=size)
            for seed in range(4):
                actual = transform(image, rng(seed))
                assert actual.shape == (*size, channels), text
                assert actual.dtype == np.uint8
    if before is not None:
        np.testing.assert_array_equal(image, before)


def test_what_cannot_be_decoded_raises():
    for crop in CROPS:
        with pytest.raises(ValueError, match="image"):
            create(crop)(FILES["jpeg"][:300], rng())


def test_the_generator_decides_everything():
    transform = create("|".join(("random_resized_crop", *AUGMENTATIONS)))
    image = FILES["jpeg"]
    expected = [transform(image, rng(seed)) for seed in range(16)]
    assert len({image_again.tobytes() for image_again in expected}) == 16
    with ThreadPoolExecutor(4) as pool:
        by_threads = list(pool.map(lambda seed: transform(image, rng(seed)), range(16)))
    copy = pickle.loads(pickle.dumps(transform))  # for worker processes
    for seed in range(16):
        np.testing.assert_array_equal(by_threads[seed], expected[seed])
        np.testing.assert_array_equal(copy(image, rng(seed)), expected[seed])


# random_resized_crop


@pytest.mark.parametrize("image_size", [(60, 80), (80, 60), (500, 375), (3000, 10), (1, 1)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0), (1e-4, 1e-3)])
def test_crops_are_inside_the_image(image_size, scale):
    generator, crop = rng(), RandomResizedCrop(scale=scale)
    for _ in range(200):
        top, left, height, width = crop.box(*image_size, generator)
        assert 0 <= top < top + height <= image_size[0]
        assert 0 <= left < left + width <= image_size[1]


def test_areas_ratios_and_places_are_distributed_as_torchvisions():
    """Wherever a draw fits at once, area and log ratio are uniform, and so is the place."""
    generator, crop = rng(), RandomResizedCrop(scale=(0.1, 0.5), ratio=(3 / 4, 4 / 3))
    boxes = np.array([crop.box(1000, 1000, generator) for _ in range(4000)])
    top, left, height, width = boxes.T
    area, ratio = height * width / 1e6, np.log(width / height)
    deciles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(area, deciles), 0.1 + 0.4 * deciles, atol=0.015)
    span = np.log(4 / 3)
    np.testing.assert_allclose(np.quantile(ratio, deciles), span * (2 * deciles - 1), atol=0.03)
    for start, length in ((top, height), (left, width)):
        place = (start + 0.5) / (1000 - length + 1)
        np.testing.assert_allclose(np.quantile(place, deciles), deciles, atol=0.04)


def test_where_no_crop_fits_it_is_the_central_one():
    crop = RandomResizedCrop()
    assert crop.box(3000, 10, rng()) == (1493, 0, 13, 10)  # width / height of at least 3 / 4
    assert crop.box(10, 3000, rng()) == (0, 1493, 10, 13)
    assert RandomResizedCrop(scale=(1, 1), ratio=(1, 1)).box(30, 40, rng()) == (0, 5, 30, 30)


def test_random_resized_crop_shows_the_crop():
    """The image's values are its coordinates, so the corners tell the crop."""
    y, x = np.mgrid[:200, :200]
    image = np.stack([y, x], axis=-1).astype(np.uint8)
    for seed in range(20):
        top, left, height, width = RandomResizedCrop().box(200, 200, rng(seed))
        actual = create("random_resized_crop", size=(50, 50))(image, rng(seed)).astype(int)
        corners = actual[[0, -1], [0, -1]]
        first = np.array([top, left]) + np.array([height, width]) / 100 - 0.5
        last = np.array([top + height, left + width]) - np.array([height, width]) / 100 - 0.5
        np.testing.assert_allclose(corners, [first, last], atol=1)


# Crops from a square


@pytest.mark.parametrize("image", ["jpeg", "png"])
@pytest.mark.parametrize(("ratio", "side", "size"), [("0.875", 32, 28), ("256/288", 288, 256)])
def test_a_crop_from_a_square_is_squashed_first_and_then_cut(image, ratio, side, size):
    """As PIL does it; every place of a random crop is one of the square's."""
    pixels = PIL.Image.fromarray(images.decode(FILES[image])).resize(
        (side, side), PIL.Image.BILINEAR
    )
    square, middle = np.asarray(pixels), (side - size) // 2
    central = create(f"square_crop({ratio})", size=(size, size), train=False)(FILES[image])
    np.testing.assert_array_equal(central, square[middle:, middle:][:size, :size])
    transform = create(f"square_random_crop({ratio})", size=(size, size))
    for seed in range(5):
        actual = transform(FILES[image], rng(seed))
        places = [(y, x) for y in range(side - size + 1) for x in range(side - size + 1)]
        assert any(np.array_equal(actual, square[y : y + size, x : x + size]) for y, x in places)


def test_the_places_of_crops_from_a_square_are_evenly_drawn():
    y, x = np.mgrid[:32, :32]
    image = np.stack([y, x], axis=-1).astype(np.uint8)
    transform, generator = create("square_random_crop(0.875)", size=(28, 28)), rng()
    corners = np.array([transform(image, generator)[0, 0] for _ in range(2000)])
    for place in corners.T:
        counts = np.bincount(place, minlength=5)
        assert len(counts) == 5
        assert counts.min() > 330


def test_a_resized_crop_from_a_square_is_drawn_in_the_square():
    square = np.asarray(PIL.Image.fromarray(picture(40, 90)).resize((32, 32), PIL.Image.BILINEAR))
    arguments = "scale=(0.2, 0.9), ratio=(1, 2)"
    transform = create(f"square_random_resized_crop(0.875, {arguments})", size=(28, 28))
    for seed in range(20):
        box = RandomResizedCrop((0.2, 0.9), (1, 2)).box(32, 32, rng(seed))
        expected = images.crop_and_resize(square, box, (28, 28), antialias=True)
        np.testing.assert_array_equal(transform(picture(40, 90), rng(seed)), expected)


# The text


def test_arguments_are_given_by_place_or_name():
    text = "random_resized_crop((0.5, 0.6), ratio=(1, 4/3)) | flip(probability=1)"
    transform = create(text)
    assert transform.crop == RandomResizedCrop(scale=(0.5, 0.6), ratio=(1, 4 / 3))
    plain = create("random_resized_crop((0.5, 0.6), (1, 4/3))")
    image = FILES["jpeg"]
    mirrored = plain(image, rng())[:, ::-1]
    np.testing.assert_array_equal(transform(image, rng()), mirrored)


def test_every_transform_can_be_named():
    assert set(list_transforms()) == {
        *CROPS,
        *("flip", "random_shift", "color_jitter", "random_erasing", "rand_augment"),
    }
    for name in list_transforms():
        create(name if name in CROPS else f"none|{name}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("cannot be parsed", "|flip")),
        ("none|", ("cannot be parsed",)),
        (None, ("give a string",)),
        ("none flip", ("cannot be parsed",)),
        ("none+flip", ("'none + flip' is not the name",)),
        ("none.flip", ("'none.flip' is not the name",)),
        ("__import__('os')", ("'__import__' is unknown",)),
        (
            "random_resized_crp",
            ("'random_resized_crp' is unknown", "did you mean 'random_resized_crop'"),
        ),
        ("none|rand_agument(2)", ("'rand_agument'", "did you mean 'rand_augment'")),
        ("flip", ("'flip' keeps the size", "begin with one of none", "'none|flip'")),
        ("none|resize_square", ("'resize_square' sets the size", "only come first")),
        ("none(1)", ("none accepts no arguments, not 1",)),
        ("none|flip(0.5, 1)", ("flip accepts probability, not 2",)),
        ("none|flip(0.5, probability=1)", ("flip is passed probability twice",)),
        ("none|flip(probabilty=1)", ("'probabilty' is unknown", "did you mean 'probability'?")),
        ("none|flip(**{'probability': 1})", ("flip", "unknown")),
        ("none|flip(x)", ("'x' is not a number",)),
        ("none|flip(open('x'))", ("is not a number",)),
        ("none|flip(1/0)", ("'1 / 0' is not a number",)),
        ("none|flip(1.5)", ("flip: probability=1.5", "at most 1")),
        ("none|flip('0.5')", ("flip: probability='0.5'", "number")),
        ("none|flip(True)", ("flip: probability=True", "number")),
        ("none|flip(1e999 - 1e999)", ("is not a number",)),
        ("resize_square('nearest')", ("interpolation='nearest' is unknown", "bicubic")),
        ("resize_crop(0)", ("resize_crop: crop_ratio=0", "above 0")),
        ("resize_crop(1.1)", ("crop_ratio=1.1", "at most 1")),
        ("square_crop(0)", ("square_crop: crop_ratio=0", "above 0")),
        ("square_random_crop(288)", ("crop_ratio=288", "at most 1")),
        ("square_random_crop(interpolation='nearest')", ("'nearest' is unknown",)),
        ("square_random_resized_crop(scale=(0, 1))", ("scale=0", "above 0")),
        ("random_resized_crop(0.5)", ("scale=0.5", "two numbers")),
        ("random_resized_crop((0, 1))", ("scale=0", "above 0")),
        ("random_resized_crop((0.1, 2))", ("scale=2", "at most 1")),
        ("random_resized_crop((1, 0.1))", ("scale=(1, 0.1)", "lower number first")),
        ("random_resized_crop(ratio=(-1, 1))", ("ratio=-1", "above 0")),
        ("none|rand_augment(0)", ("num_ops=0", "at least 1")),
        ("none|rand_augment(1.5)", ("num_ops=1.5", "whole number")),
        ("none|rand_augment(2, 31)", ("magnitude=31", "at most 30")),
        ("none|rand_augment(2, -1)", ("magnitude=-1", "at least 0")),
        ("none|rand_augment(2, 9, -1)", ("magnitude_std=-1", "at least 0")),
        ("none|rand_augment(magnitude_std=1e999)", ("magnitude_std=inf", "at least 0")),
        ("none|color_jitter(-0.1)", ("brightness=-0.1", "at least 0")),
        ("none|color_jitter(hue=0.6)", ("hue=0.6", "at most 0.5")),
        ("none|random_erasing(fill='black')", ("fill='black' is unknown", "mean, noise")),
        ("none|color_jitter(hue=-0.1)", ("hue=-0.1", "at least 0")),
        ("none|color_jitter(0.1, -0.2)", ("contrast=-0.2", "at least 0")),
        ("none|color_jitter(0.1, 0.2, -0.3)", ("saturation=-0.3", "at least 0")),
        ("none|random_erasing(2)", ("probability=2",)),
        ("none|random_erasing(-0.1)", ("probability=-0.1", "at least 0")),
        ("none|random_erasing(scale=(0, 0.5))", ("scale=0", "above 0")),
        ("none|random_erasing(scale=(0.5, 1.1))", ("scale=1.1", "at most 1")),
        ("none|random_erasing(ratio=(0, 1))", ("ratio=0", "above 0")),
    ],
)
def test_bad_texts_are_named_before_training(text, expected):
    with pytest.raises(ValueError, match=r"^data\.train_transform=") as raised:
        create(text)
    for part in (repr(text), *expected):
        assert part in str(raised.value)


@pytest.mark.parametrize("text", ["random_resized_crop", "none|flip", "resize_crop|rand_augment"])
def test_evaluation_takes_no_random_transform(text):
    expected = (
        r"^data\.test_transform=.* is random.* none, resize_square, resize_crop, square_crop$"
    )
    with pytest.raises(ValueError, match=expected):
        create(text, train=False)
