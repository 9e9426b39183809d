"""The font_digits data set: what is drawn, how it is reduced, what is in which split."""

import collections
import hashlib
import io

import matplotlib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from pnoise_jax.data import list_datasets, load
from pnoise_jax.data.builtin import digit_drawings, digits, font_digits, fonts

SIZES = {"train": 4000, "test": 1000}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A directory with the data set prepared, where any attempt to reach a network fails."""

    def refuse(*_, **__):
        raise AssertionError("preparing the digits must not use the network")

    directory = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        patch.setattr("socket.getaddrinfo", refuse)
        load("font_digits", split="train", data_dir=directory)
    return directory


@pytest.fixture(scope="module")
def splits(data_dir):
    return {s: load("font_digits", split=s, data_dir=data_dir, cache=True) for s in SIZES}


# What is stored


def test_it_looks_like_the_handwritten_digits(splits, data_dir):
    handwritten = load("digits", split="test", data_dir=data_dir, cache=True)
    values = set(np.rint(np.arange(17) * 255 / 16).astype(int))
    assert "font_digits" in list_datasets()
    for split, dataset in splits.items():
        assert len(dataset) == SIZES[split]
        assert dataset.class_names == handwritten.class_names == tuple("0123456789")
        assert (dataset.num_classes, dataset.image_shape) == (10, handwritten.image_shape)
        assert set(np.unique(dataset.images)) == set(np.unique(handwritten.images)) == values
        ink = [np.mean(x.images) / 255 for x in (dataset, handwritten)]
        assert ink[0] == pytest.approx(ink[1], abs=0.1)


def test_every_digit_is_drawn_equally_often_in_every_face_of_its_split(data_dir):
    builder = font_digits.FontDigits(data_dir=data_dir, file_format="array_record")
    names = builder.info.features["face"].names
    for split, size in SIZES.items():
        seen, ids = collections.Counter(), set()
        for record in builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}):
            face = names[record["face"]]
            seen[int(record["label"]), face] += 1
            ids.add(record["id"].decode())
            assert record["id"].decode().startswith(f"{record['label']}/{face}/")
        faces = font_digits.FACES[split]
        per_face = size // 10 // len(faces)
        assert seen == {(d, face): per_face for d in range(10) for face in faces}
        assert len(ids) == size
    assert builder.info.metadata["matplotlib"] == matplotlib.__version__


def test_no_face_is_in_both_splits():
    assert not set(font_digits.FACES["train"]) & set(font_digits.FACES["test"])
    assert [len(font_digits.FACES[split]) for split in SIZES] == [16, 5]


def test_no_image_of_the_test_is_in_the_training_set(splits):
    train, test = ({image.tobytes() for image in splits[s].images} for s in SIZES)
    assert not train & test


def test_every_round_of_the_stored_order_has_each_digit_once(splits):
    for dataset in splits.values():
        rounds = dataset.labels.reshape(-1, 10)
        assert (np.sort(rounds, axis=1) == np.arange(10)).all()
        assert not (rounds[1:] == rounds[:-1]).all(axis=1).all()


def test_the_pixels_never_change(splits):
    # They are version 1.0.0 of the data set: a change needs another version.
    digests = {s: hashlib.sha256(d.images.tobytes()).hexdigest()[:16] for s, d in splits.items()}
    assert digests == {"train": "62789ab146f1f640", "test": "635437ff2f8df4e1"}


# How far it is from the handwritten digits


def test_a_network_falls_from_99_to_about_60_percent_on_handwritten_digits(splits, data_dir):
    def pixels(dataset):
        return dataset.images.reshape(len(dataset), -1) / 255, dataset.labels

    train, test = (pixels(splits[split]) for split in SIZES)
    handwritten = pixels(load("digits", split="test", data_dir=data_dir, cache=True))
    network = MLPClassifier((32,), early_stopping=True, random_state=0).fit(*train)
    assert network.score(*test) > 0.97
    assert 0.5 < network.score(*handwritten) < 0.7


# Drawing


def test_blocks_are_counted_as_in_the_data_of_scikit_learn():
    bitmap = np.zeros((32, 32), bool)
    bitmap[0, 0] = bitmap[3, 3] = bitmap[0, 4] = True
    bitmap[28:, 28:] = True
    counts = digit_drawings.block_counts(bitmap)
    assert counts.shape == load_digits().images[0].shape
    assert (counts[0, 0], counts[0, 1], counts[7, 7], counts.sum()) == (2, 1, 16, 19)


def test_a_plain_digit_is_its_outline_filled():
    """A square of a known size replaces the outline: half pixels decide."""
    pen = digit_drawings.Pen(["DejaVuSans"])
    square = np.array([[0, 0], [8, 0], [8, 8], [0, 8]], float)
    pen._outlines["DejaVuSans", 0] = fonts.Contours(square, [1, 2, 2, 2])
    for boldness, side in ((0.0, 26), (1.0, 28)):
        plain = digit_drawings.Variation(0, 0, 1, 26, boldness, 0, 0)
        bitmap = pen.draw(0, "DejaVuSans", plain)
        low, high = 16 - side // 2, 16 + side // 2
        assert bitmap[low + 1 : high - 1, low + 1 : high - 1].all()  # a disc rounds the corners
        assert bitmap.any(axis=0).tolist() == [low <= i < high for i in range(32)]
        assert bitmap.any(axis=1).tolist() == [low <= i < high for i in range(32)]


@pytest.mark.parametrize("byte", [0x00, 0xFF])
@pytest.mark.parametrize("face", ["DejaVuSansMono-Bold", "cmmi10"])
def test_the_largest_variation_cuts_nothing_off(byte, face, monkeypatch):
    variation = digit_drawings.Variation.from_digest(bytes([byte]) * 32)
    sign = -1 if byte == 0 else 1
    extent, boldness = 28 + 2 * sign, 0.5 + 0.5 * sign
    room = {-1: 1.5, 1: 0.0}[sign]
    expected = (10 * sign, 0.15 * sign, 1 + 0.1 * sign, extent, boldness, -room, -room)
    np.testing.assert_allclose(list(vars(variation).values()), expected, rtol=1e-6, atol=1e-6)
    inside = [digit_drawings.Pen([face]).draw(d, face, variation).sum() for d in range(10)]
    monkeypatch.setattr(digit_drawings, "SIDE", 40)  # a wider sheet shows what was cut off
    wider = [digit_drawings.Pen([face]).draw(d, face, variation).sum() for d in range(10)]
    assert inside == wider


def test_variations_differ_from_drawing_to_drawing():
    drawn = [
        digit_drawings.Variation.from_digest(hashlib.sha256(b"%d" % i).digest()) for i in range(500)
    ]
    for field, low, high in (("rotation", -10, 10), ("extent", 26, 30), ("boldness", 0, 1)):
        values = np.array([getattr(variation, field) for variation in drawn])
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high >= values.max() > high - 0.1 * (high - low)
    assert max(abs(v.right) + v.extent / 2 + v.boldness for v in drawn) <= 16


# Errors


def test_missing_fonts_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path / "mpl-data"))
    data_dir = tmp_path / "tfds"
    with pytest.raises(FileNotFoundError, match=r"DejaVuSans\.ttf does not exist: matplotlib"):
        load("font_digits", split="train", data_dir=data_dir)
    assert not list(data_dir.iterdir())


def test_other_fonts_are_refused(tmp_path, monkeypatch):
    outline = fonts.outline

    def other(face, codepoint):
        contours = outline(face, codepoint)
        if codepoint == ord("7") and face.family_name == "STIXGeneral":
            contours.vertices[0, 0] += 1
        return contours

    monkeypatch.setattr(fonts, "outline", other)
    with pytest.raises(
        ValueError, match=r"font_digits.* but the digits .* differ, so .*Prepare it with"
    ):
        load("font_digits", split="train", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_values_become_bytes_as_in_the_handwritten_digits():
    values = np.arange(64).reshape(8, 8) % 17
    with Image.open(io.BytesIO(digits.encode_counts(values))) as image:
        np.testing.assert_array_equal(np.asarray(image), np.rint(values * 255 / 16))
