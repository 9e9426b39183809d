"""What users' builders declare about their images: honoured as TFDS reads it, or refused."""

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from pnoise_jax import data
from pnoise_jax.data.image.transforms import create_transform
from tests.data.image.pictures import encode, jpeg, picture

PIXELS = picture(8, 8)
COLOURS = PIL.Image.fromarray(PIXELS)
GRAY = COLOURS.convert("L")
PALETTE = COLOURS.quantize(16)
RGBA = PIL.Image.fromarray(picture(8, 8, 4))
TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6  # which readers ignore
OPTIONS = {"batch_size": 2, "seed": 0, "start_step": 0, "num_steps": 3, "num_threads": 0}


def prepare(data_dir, name, shape, files, dtype=np.uint8):
    """<data_dir>/<name>/1.0.0 in array_record, by a builder that stores the files as they are."""

    def info(self):
        image = tfds.features.Image(shape=shape, dtype=dtype, encoding_format=None)
        label = tfds.features.ClassLabel(num_classes=2)
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def examples(self):
        for i, file in enumerate(files):
            yield i, {"image": file, "label": i % 2}

    methods = {
        "VERSION": tfds.core.Version("1.0.0"),
        "name": name,
        "pkg_dir_path": data_dir,
        "_info": info,
        "_split_generators": lambda self, _: {"train": examples(self)},
        "_generate_examples": examples,
    }
    bases = (tfds.core.GeneratorBasedBuilder,)
    builder = type(name, bases, methods, skip_registration=True)(
        data_dir=data_dir, file_format="array_record"
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return builder


HONOURED = {
    "mnist_like": ((8, 8, 1), encode(GRAY, "PNG")),
    "gray_of_any_size": ((None, None, 1), encode(GRAY, "PNG")),
    "gray_jpeg_of_any_size": ((None, None, 1), encode(GRAY, "JPEG")),
    "gray_in_rgb": ((8, 8, 3), encode(GRAY, "PNG")),
    "gray_jpeg_in_rgb": ((8, 8, 3), encode(GRAY, "JPEG")),
    "palette_in_rgb": ((8, 8, 3), encode(PALETTE, "PNG")),
    "palette_of_any_size": ((None, None, 3), encode(PALETTE, "PNG")),
    "one_bit": ((8, 8, 1), encode(GRAY.convert("1"), "PNG")),
    "opacity": ((8, 8, 4), encode(RGBA, "PNG")),
    "opacity_of_any_size": ((None, None, 4), encode(RGBA, "PNG")),
    "turned": ((8, 8, 3), jpeg(PIXELS, exif=TURNED)),
    "any_channels": ((None, None, None), encode(RGBA, "PNG")),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.mark.parametrize("name", HONOURED)
def test_images_are_those_that_tfds_reads(name, directory):
    shape, file = HONOURED[name]
    builder = prepare(directory, name, shape, [file] * 4)
    theirs = [example["image"] for example in builder.as_data_source("train")]
    for cache in (False, True):
        ours = data.load(name, split="train", data_dir=directory, cache=cache)
        assert ours.image_shape == (None if None in shape else shape)
        assert ours.channels == theirs[0].shape[2]
        for i in range(4):
            np.testing.assert_array_equal(ours[i]["image"], theirs[i])
        with data.train_batches(ours, **OPTIONS) as batches:
            for batch in batches:
                np.testing.assert_array_equal(batch["image"], [theirs[0]] * 2)
        crop = create_transform(
            "resize_square", size=(8, 8), mean=(0.5,), std=(0.5,), train=False, field=""
        )
        whole = ours.transformed(crop, (8, 8, ours.channels))
        with data.eval_batches(whole, indices=np.arange(4), batch_size=3, num_threads=0) as batches:
            first, last = batches
        np.testing.assert_array_equal(first["image"], [theirs[0]] * 3)
        np.testing.assert_array_equal(last["image"][:1], [theirs[0]])


@pytest.mark.parametrize("transform", ["random_resized_crop|flip", "resize_crop(0.9)"])
@pytest.mark.parametrize("name", ["gray_of_any_size", "gray_jpeg_of_any_size"])
def test_crops_have_the_declared_channels(name, transform, tmp_path):
    prepare(tmp_path, name, HONOURED[name][0], [HONOURED[name][1]] * 4)
    dataset = data.load(name, split="train", data_dir=tmp_path)
    crop = create_transform(
        transform, size=(6, 6), mean=(0.5,), std=(0.5,), train=True, field="data.train_transform"
    )
    with data.train_batches(dataset, transform=crop, **OPTIONS) as batches:
        assert {batch["image"].shape for batch in batches} == {(2, 6, 6, 1)}


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    ("shape", "file", "message"),
    [
        ((8, 8, 1), encode(COLOURS, "PNG"), r"3 channels \(RGB\), not 1"),
        ((8, 8, 1), encode(PALETTE, "PNG"), r"3 channels \(a palette\), not 1"),
        ((None, None, 1), jpeg(PIXELS), r"3 channels \(RGB\), not 1"),
        ((None, None, 4), encode(COLOURS, "PNG"), r"3 channels \(RGB\), not 4"),
        ((None, None, 4), encode(GRAY, "PNG"), r"1 channel \(gray\), not 4"),
        ((8, 9, 3), encode(COLOURS, "PNG"), "8 x 8 pixels"),
    ],
)
def test_what_contradicts_the_declaration_is_named(shape, file, message, cache, tmp_path):
    prepare(tmp_path, "odd", shape, [file] * 2)
    fits = f"image [01] of odd's split 'train': the file has {message}.*shape"
    with pytest.raises(ValueError, match=fits) as error:
        data.load("odd", split="train", data_dir=tmp_path, cache=cache)[0]
    assert str(shape) in str(error.value)


def test_one_declared_side_is_compared(tmp_path):
    prepare(tmp_path, "rows", (8, None, 3), [encode(COLOURS, "PNG"), jpeg(picture(9, 8))])
    dataset = data.load("rows", split="train", data_dir=tmp_path)
    outcomes = []
    for i in range(2):
        try:
            outcomes.append(dataset[i]["image"].shape)
        except ValueError as error:
            outcomes.append(str(error))
    assert (8, 8, 3) in outcomes
    (message,) = [x for x in outcomes if isinstance(x, str)]
    assert "rows's split 'train': the file has 9 x 8 pixels, but the data set declares" in message
    assert "shape (8, None, 3): correct" in message


def test_a_first_image_that_cannot_be_read_is_named(tmp_path):
    prepare(tmp_path, "damaged", (None, None, None), [b"garbage"])
    with pytest.raises(OSError, match=r"image 0 of damaged's split 'train' cannot be read"):
        data.load("damaged", split="train", data_dir=tmp_path)


def test_undeclared_channels_must_agree(tmp_path):
    files = [encode(GRAY, "PNG"), encode(COLOURS, "PNG")]
    prepare(tmp_path, "odd", (None, None, None), files)
    dataset = data.load("odd", split="train", data_dir=tmp_path)
    assert dataset[0]["image"].shape == (8, 8, 1)
    with pytest.raises(ValueError, match="image 1 of odd's split 'train': the file has 3 channels"):
        dataset[1]


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((8, 8, 1), np.uint16, r"shape \(8, 8, 1\) and dtype uint16"),
        ((None, None, 3), np.uint16, r"shape \(None, None, 3\) and dtype uint16"),
        ((8, 8, 1), np.float32, r"shape \(8, 8, 1\) and dtype float32"),
        ((None, 8, 8, 3), np.uint8, r"shape \(None, 8, 8, 3\)"),
    ],
)
def test_other_depths_are_refused_before_anything_is_read(shape, dtype, message, tmp_path):
    image = PIL.Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    file = encode(image, "PNG")
    if dtype == np.float32:
        prepare(tmp_path, "odd", shape, [file] * 2)
        features = tmp_path / "odd" / "1.0.0" / "features.json"
        assert '"uint8"' in features.read_text()
        features.write_text(features.read_text().replace('"uint8"', '"float32"'))
    else:
        prepare(tmp_path, "odd", shape, [file] * 2, dtype=dtype)
    with pytest.raises(ValueError, match=rf"data\.name='odd' declares images of {message}"):
        data.load("odd", split="train", data_dir=tmp_path)
