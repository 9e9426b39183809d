"""The glyphs data set: which characters are classes, what is drawn, what is in which split."""

import collections
import functools
import hashlib
import itertools
import unicodedata

import matplotlib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from matplotlib.path import Path as Contours

from pnoise_jax.data import list_datasets, load
from pnoise_jax.data.builtin import characters, fonts, glyphs

pytestmark = pytest.mark.long

CONFIGS = tuple(glyphs.SPLITS)
SIZES = {"train": 16_000, "test": 8_000}  # of glyphs/200


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A directory with glyphs/200 prepared, where any attempt to reach a network fails."""

    def refuse(*_, **__):
        raise AssertionError("preparing the glyphs must not use the network")

    directory = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        patch.setattr("socket.getaddrinfo", refuse)
        load("glyphs/200", split="train", data_dir=directory)
    return directory


@pytest.fixture(scope="module")
def builder(data_dir):
    return glyphs.Glyphs(config="200", data_dir=data_dir, file_format="array_record")


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """Drawing all candidates takes seconds, so the tests share their drawings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(characters, "plain_drawings", functools.cache(characters.plain_drawings))
        yield


@pytest.fixture(scope="module", params=CONFIGS)
def plain(request):
    """A config and all its candidates: {codepoint: row}, and their drawings of length 1, by face.

    The drawings are (faces, n, pixels).
    """
    faces = faces_of(request.param)
    codepoints, drawings = characters.plain_drawings(faces)
    drawings = drawings / np.linalg.norm(drawings.astype(np.float64), axis=2, keepdims=True)
    rows = {codepoint: row for row, codepoint in enumerate(codepoints)}
    return request.param, rows, dict(zip(faces, drawings, strict=True))


def faces_of(config):
    """The faces of the training split, then of the test split, typeface by typeface."""
    test = (glyphs.TYPEFACES[name] for name in glyphs.SPLITS[config]["test"])
    return (*glyphs.faces_of(config, "train"), *itertools.chain.from_iterable(test))


# The classes


def test_the_classes_never_change():
    # These are version 2.0.0 of the data set: a change needs another version.
    small, large = map(glyphs.class_codepoints, CONFIGS)
    assert (len(small), len(large)) == (200, 1000)
    for classes in (small, large):
        assert [chr(c) for c in classes[:12]] == list("!$&()*,.0123")
        for first, like_it in [("V", "v"), ("W", "w"), ("B", "Β"), ("A", "А")]:
            assert ord(first) in classes
            assert not {ord(c) for c in like_it} & set(classes)
    assert (chr(small[-1]), chr(large[199]), chr(large[-1])) == ("ơ", "Ƅ", "⬈")


def test_the_classes_are_exactly_what_the_rules_leave(plain):
    config, rows, drawings = plain
    train = [drawings[face] for face in glyphs.faces_of(config, "train")]
    # DejaVu Sans Mono may draw as DejaVu Sans does: otherwise only 857 classes would be left.
    new = [drawings[f] for f in glyphs.faces_of(config, "test") if "Mono" not in f]
    copies = np.einsum("fnd,gnd->nfg", train, new).max(axis=(1, 2)) >= 0.99
    alike = np.max([face @ face.T for face in drawings.values()], axis=0) >= 0.95
    classes = glyphs.class_codepoints(config)
    kept = [rows[c] for c in classes]
    assert not copies[kept].any()
    np.testing.assert_array_equal(alike[np.ix_(kept, kept)], np.eye(len(kept), dtype=bool))
    for row in set(range(max(kept))) - set(kept):
        earlier = [k for k in kept if k < row]
        assert copies[row] or alike[row, earlier].any(), "dropped without a reason"


def test_the_description_says_how_many_classes_mono_draws_as_sans(plain):
    config, rows, drawings = plain
    kept = [rows[c] for c in glyphs.class_codepoints(config)]
    train = [drawings[face][kept] for face in glyphs.faces_of(config, "train")]
    test = [drawings[face][kept] for face in glyphs.faces_of(config, "test")]
    copies = np.einsum("fnd,gnd->nfg", train, test).max(axis=(1, 2)) >= 0.99
    assert copies.sum() == {"200": 0, "1000": 176}[config]
    assert "draws 176 of them nearly" in glyphs._DESCRIPTION


def test_the_candidates_are_all_visible_characters_of_all_faces(plain):
    config, rows, _ = plain
    charmaps = [fonts.open_face(name).get_charmap() for name in faces_of(config)]
    shared = set.intersection(*({c for c, glyph in m.items() if glyph} for m in charmaps))
    invisible = {c for c in shared if unicodedata.category(chr(c))[0] in "CMZ"}
    # OBJECT REPLACEMENT CHARACTER, a symbol by its category, is blank in some face of DejaVu.
    assert set(rows) == shared - invisible - {0xFFFC}
    assert len(shared) == {"200": 730, "1000": 2383}[config]


# What is stored


@pytest.mark.slow
@pytest.mark.parametrize("split", SIZES)
def test_every_class_is_drawn_equally_often_in_every_face_of_its_split(data_dir, builder, split):
    dataset = load("glyphs/200", split=split, data_dir=data_dir)
    assert len(dataset) == SIZES[split]
    assert (dataset.num_classes, dataset.image_shape) == (200, (32, 32, 1))
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    names = builder.info.features["face"].names
    typefaces = builder.info.features["typeface"].names
    classes, seen = glyphs.class_codepoints("200"), collections.Counter()
    for label, record in zip(dataset.labels, source, strict=True):
        face = names[record["face"]]
        seen[int(record["label"]), face] += 1
        assert record["label"] == label
        assert record["codepoint"] == classes[label]
        assert face in glyphs.TYPEFACES[typefaces[record["typeface"]]]
        assert record["id"].decode().startswith(f"U+{record['codepoint']:04X}/{face}/")
    faces = glyphs.faces_of("200", split)
    assert seen == {(c, face): SIZES[split] / 1600 for c in range(200) for face in faces}


@pytest.mark.parametrize("config", CONFIGS)
def test_the_test_has_two_typefaces_that_training_never_shows(config):
    splits = glyphs.SPLITS[config]
    assert len(splits["test"]) == 2
    assert not set(splits["train"]) & set(splits["test"])
    for split, typefaces in splits.items():
        names = [fonts.open_face(face).family_name for face in glyphs.faces_of(config, split)]
        assert collections.Counter(names) == dict.fromkeys(typefaces, 4)


@pytest.mark.slow
@pytest.mark.parametrize("split", SIZES)
def test_every_round_of_the_stored_order_has_each_class_once(data_dir, split):
    labels = load("glyphs/200", split=split, data_dir=data_dir).labels.reshape(-1, 200)
    assert (np.sort(labels, axis=1) == np.arange(200)).all()
    assert not (labels[1:] == labels[:-1]).all(axis=1).any(), "each round has its own order"


@pytest.mark.parametrize("config", CONFIGS)
def test_a_few_rounds_have_each_class_in_each_face(config):
    for split, number in glyphs.EXAMPLES.items():
        faces = glyphs.faces_of(config, split)
        order = list(glyphs.stored_order(tuple(range(33, 53)), config, split))
        assert len(set(order)) == len(order) == 20 * number
        assert len({(label, face) for label, face, _ in order[: 20 * len(faces)]}) == 20 * len(
            faces
        )
        assert len({face for _, face, _ in order[:20]}) == len(faces)


def test_two_files_of_a_class_that_follow_each_other_are_in_two_typefaces():
    order = list(glyphs.stored_order(tuple(range(33, 53)), "200", "test"))
    faces = [face for label, face, _ in order if label == 7]
    for first, second in zip(faces[::2], faces[1::2], strict=True):
        assert first.startswith("STIX") != second.startswith("STIX")


@pytest.mark.slow
def test_no_image_is_blank_or_stored_twice(data_dir):
    images = [
        load("glyphs/200", split=split, data_dir=data_dir, cache=True).images for split in SIZES
    ]
    images = np.concatenate(images).reshape(24_000, -1)
    assert images.sum(axis=1, dtype=int).min() > 10 * 255  # ten pixels' worth of ink
    assert (images.max(axis=1) > 128).all()
    assert images.mean(axis=1).max() < 0.75 * 255
    assert len({image.tobytes() for image in images}) == len(images)


def test_stored_images_are_the_drawings_that_their_ids_name(builder):
    source = builder.as_data_source("test")
    pen = characters.Pen(glyphs.faces_of("200", "test"))
    for record in (source[i] for i in range(0, 8000, 80)):
        name = record["id"].decode()
        digest = hashlib.sha256(f"glyphs/2.0.0/{name}".encode()).digest()
        drawn = pen.draw(
            int(record["codepoint"]), name.split("/")[1], characters.Jitter.from_digest(digest)
        )
        np.testing.assert_array_equal(record["image"][..., 0], drawn)


def test_the_drawings_never_change(data_dir):
    # Version 2.0.0 of the data set, drawn alike by matplotlib 3.10.0 and 3.11.2.
    dataset = load("glyphs/200", split="test[:100]", data_dir=data_dir, cache=True)
    assert hashlib.sha256(dataset.images.tobytes()).hexdigest()[:16] == "acc22c97680ef49b"


def test_a_version_has_a_directory_of_its_own(data_dir):
    # What was prepared as 1.0.0 stays where it is, and is not read as this version.
    assert [path.name for path in (data_dir / "glyphs" / "200").iterdir()] == ["2.0.0"]


def test_the_data_set_says_what_drew_it(builder):
    metadata = builder.info.metadata
    assert metadata["matplotlib"] == matplotlib.__version__
    assert metadata["freetype"] == matplotlib.ft2font.__freetype_version__
    assert tuple(metadata["codepoints"]) == glyphs.class_codepoints("200")


# Drawing


def test_ink_is_the_share_of_a_pixel_that_is_inside():
    square = np.array([[-2.5, -1], [1, -1], [1, 2], [-2.5, 2]])
    image = fonts.Canvas(8).draw(Contours(square, [1, 2, 2, 2]))
    expected = np.zeros((8, 8))
    expected[2:5, 1:5] = [127.5, 255, 255, 255]  # rows downwards: y from 2 to -1
    np.testing.assert_allclose(image, expected, atol=1)


def test_outlines_keep_holes_and_curves():
    face = fonts.open_face("DejaVuSans")
    canvas = fonts.Canvas(32)
    image = canvas.draw(fonts.transform(fonts.outline(face, ord("O")), extent=28))
    assert image[16, 16] == 0
    face.load_char(ord("O"), flags=matplotlib.ft2font.LoadFlags.NO_HINTING)
    curved = Contours(*face.get_path())
    points = fonts.outline(face, ord("O")).vertices
    middle, scale = (points.min(axis=0) + points.max(axis=0)) / 2, 28 / np.ptp(points, axis=0).max()
    reference = canvas.draw(Contours((curved.vertices - middle) * scale, curved.codes))
    assert np.abs(image - reference.astype(int)).max() < 64  # a quarter of a pixel
    assert abs(image.mean() - reference.mean()) < 1


def test_blanks_have_no_outline():
    face = fonts.open_face("DejaVuSans")
    assert fonts.outline(face, ord(" ")) is None
    assert fonts.outline(face, ord("x")) is not None


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_the_largest_jitter_cuts_nothing_off(byte):
    jitter = characters.Jitter.from_digest(bytes([byte]) * 32)
    sign = -1 if byte == 0 else 1
    expected = (10 * sign, 0.15 * sign, 1 + 0.1 * sign, 24 + 4 * sign, 2 * sign, 2 * sign)
    np.testing.assert_allclose(list(vars(jitter).values()), expected, rtol=1e-6)
    corner = (2 * np.sign(jitter.right),) * 2
    outline = fonts.outline(fonts.open_face("DejaVuSans"), ord("W"))
    moved = fonts.transform(outline, extent=28, matrix=jitter.matrix, shift=corner)
    assert np.abs(moved.vertices).max() <= 16
    assert np.ptp(moved.vertices, axis=0).max() == pytest.approx(28)


def test_jitter_is_stretch_then_shear_then_rotation():
    quarter = characters.Jitter(90, 0.5, 2, 24, 0, 0).matrix
    np.testing.assert_allclose(quarter @ [1, 0], [0, 2], atol=1e-12)  # stretched, then turned
    np.testing.assert_allclose(quarter @ [0, 1], [-0.5, 0.25], atol=1e-12)


# Errors


@pytest.mark.parametrize("name", ["glyphs", "glyphs/300", "glyphs/"])
def test_a_config_that_does_not_exist_lists_those_that_do(tmp_path, name):
    with pytest.raises(ValueError, match=rf"data\.name='{name}' is unknown") as error:
        load(name, split="train", data_dir=tmp_path)
    assert "Choose one of: digits, domainnet, font_digits, glyphs/1000" in str(error.value)
    assert {"glyphs/200", "glyphs/1000"} <= set(list_datasets())
    assert not list(tmp_path.iterdir())


def test_missing_fonts_are_named(tmp_path, monkeypatch):
    uncached = characters.distinct_codepoints.__wrapped__
    monkeypatch.setattr(characters, "distinct_codepoints", uncached)
    monkeypatch.setattr(characters, "plain_drawings", characters.plain_drawings.__wrapped__)
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path / "mpl-data"))
    data_dir = tmp_path / "tfds"
    with pytest.raises(FileNotFoundError, match=r"DejaVuSans\.ttf does not exist: matplotlib"):
        load("glyphs/200", split="train", data_dir=data_dir)
    assert not list(data_dir.iterdir())


def test_other_fonts_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(characters, "distinct_codepoints", lambda *_: tuple(range(33, 1033)))
    with pytest.raises(
        ValueError, match=r"glyphs/1000.* result in other classes .*Prepare it with"
    ):
        load("glyphs/1000", split="train", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())
