"""ImageNet-V2, -A, -R, -Sketch, -C and ReaL from archives in the official layouts; others refused.

The results are, record by record, those of TFDS's own builders for the same files.
"""

import io
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.datasets.imagenet2012_real import (
    imagenet2012_real_dataset_builder as tfds_real,
)
from tensorflow_datasets.datasets.imagenet_a import imagenet_a_dataset_builder as tfds_a
from tensorflow_datasets.datasets.imagenet_r import imagenet_r_dataset_builder as tfds_r
from tensorflow_datasets.datasets.imagenet_sketch import imagenet_sketch_dataset_builder as tfds_s
from tensorflow_datasets.datasets.imagenet_v2 import imagenet_v2_dataset_builder as tfds_v2
from tensorflow_datasets.proto import tf_example_pb2

from pnoise_jax import data
from pnoise_jax.data import imagenet_sets
from pnoise_jax.data.prepare import expand, prepare
from pnoise_jax.data.prepare.builders import imagenet
from pnoise_jax.data.prepare.builders.imagenet_tests import corrupted, real
from tests.data import archives

V2, A, R, SKETCH = "imagenet_v2/matched-frequency", "imagenet_a", "imagenet_r", "imagenet_sketch"
REAL, C = "imagenet2012_real", "imagenet2012_corrupted/gaussian_noise_3"
FILES = SimpleNamespace(listdir=os.listdir, isdir=os.path.isdir)  # for TFDS's own code


@pytest.fixture
def manual_dir(tmp_path):
    (tmp_path / "manual").mkdir()
    return tmp_path / "manual"


@pytest.fixture
def few_images(monkeypatch):
    """A validation set of 2000 images: two of each class, the second ones in reverse order."""
    labels = [*range(1000), *range(999, -1, -1)]
    monkeypatch.setattr(imagenet, "validation_labels", lambda: labels)
    monkeypatch.setattr(real, "_NUM_IMAGES", len(labels))
    return labels


def make(directory, name, **options):
    if name.startswith("imagenet_v2"):
        archives.make_imagenet_v2(directory, **options)
    else:
        archives.make_imagenet_class_set(directory, name, **options)


def make_real(directory, labels, *, sets=None):
    """Without labels for images 1 and 7; some with several; returns the sets."""
    files = {f"ILSVRC2012_val_{i:08d}.JPEG": tiny(label) for i, label in enumerate(labels, start=1)}
    archives.write_tar(directory / "ILSVRC2012_img_val.tar", files)
    if sets is None:
        sets = [[label] for label in labels]
        sets[0] = sets[6] = []
        sets[3] = [500, labels[3], 7]
        sets[4] = [labels[4] + 1]
        sets[5] = [labels[5], labels[5]]
    (directory / "real.json").write_text(json.dumps(sets))
    return sets


def tiny(label):
    return archives.image(label % 50, 0, size=(10, 12))


def records_of(directory):
    """The examples of each file, by its name, and features.json."""
    records = {}
    for file in sorted(directory.glob("*.array_record*")):
        with ArrayRecordDataSource(str(file)) as source:
            examples = [tf_example_pb2.Example.FromString(record) for record in source]
        records[file.name] = [e.SerializeToString(deterministic=True) for e in examples]
    return records, json.loads((directory / "features.json").read_text())


def stock(builder, name, gen_kwargs, data_dir, **options):
    """Runs TFDS's own builder on files on this disk; returns the directory."""

    class Stock(builder, skip_registration=True):
        pkg_dir_path = tfds.core.tfds_path(f"datasets/{name}")

        def _split_generators(self, dl_manager):
            split = "validation" if name == REAL else "test"
            return [tfds.core.SplitGenerator(split, gen_kwargs)]

    Stock.name = name
    made = Stock(data_dir=data_dir, file_format="array_record", **options)
    made.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return made.data_path


@pytest.mark.parametrize("name", [V2, A, R])
def test_folders_are_what_tfds_prepares(name, manual_dir, tmp_path, monkeypatch):
    extracted = {"extracted": True} if name != V2 else {"suffix": ""}
    number = 1 if name == V2 else 2
    make(manual_dir, name, per_class=number)
    make(manual_dir, name, per_class=number, **extracted)
    module, root, key = {
        V2: (tfds_v2, "imagenetv2-matched-frequency-format-val", "imagenet_v2_root"),
        A: (tfds_a, "imagenet-a", "imagenet_a_root"),
        R: (tfds_r, "imagenet-r", "imagenet_r_root"),
    }[name]
    files = SimpleNamespace(io=SimpleNamespace(gfile=FILES))
    monkeypatch.setattr(module, "tf", files)
    if name == R:  # TFDS takes the authors' text for a folder
        (manual_dir / root / "README.txt").unlink()
    base, _, config = name.partition("/")
    options = {"config": config} if config else {}
    theirs = stock(
        module.Builder, base, {key: str(manual_dir / root)}, tmp_path / "theirs", **options
    )
    prepared = prepare(name, manual_dir=manual_dir, data_dir=tmp_path / "ours")
    assert prepared.path.name == theirs.name
    assert records_of(prepared.path) == records_of(theirs)
    assert any("the official archive has" in note for note in prepared.notes)
    # And it is the same from the folder.
    for archive in manual_dir.glob("*.tar*"):
        archive.unlink()
    again = prepare(name, manual_dir=manual_dir, data_dir=tmp_path / "again")
    assert records_of(again.path) == records_of(theirs)


def test_sketches_are_what_tfds_prepares(manual_dir, tmp_path):
    make(manual_dir, SKETCH)
    make(manual_dir, SKETCH, extracted=True)
    listed = (
        (str(path.relative_to(manual_dir)), io.BytesIO(path.read_bytes()))
        for path in sorted(manual_dir.rglob("*.JPEG"))
    )
    theirs = stock(tfds_s.Builder, SKETCH, {"archive": listed}, tmp_path / "theirs")
    prepared = prepare(SKETCH, manual_dir=manual_dir, data_dir=tmp_path / "ours")
    assert records_of(prepared.path) == records_of(theirs)
    assert (prepared.splits, prepared.path.name) == ({"test": 1000}, "1.0.0")


def test_real_is_what_tfds_prepares_and_leaves_out_images_without_labels(
    manual_dir, tmp_path, few_images
):
    sets = make_real(manual_dir, few_images)
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, len(few_images) + 1)]
    synsets = archives.imagenet_synsets()
    arguments = {
        "archive": ((n, io.BytesIO(tiny(x))) for n, x in zip(names, few_images, strict=True)),
        "original_labels": {n: synsets[x] for n, x in zip(names, few_images, strict=True)},
        "real_labels": dict(zip(names, sets, strict=True)),
    }
    theirs = stock(tfds_real.Builder, REAL, arguments, tmp_path / "theirs")
    prepared = prepare(REAL, manual_dir=manual_dir, data_dir=tmp_path / "ours")
    assert records_of(prepared.path) == records_of(theirs)
    assert any("2 images have no ReaL label" in note for note in prepared.notes)
    assert any("real.json has 3163 images without" in note for note in prepared.notes)

    ours = data.load(REAL, split="validation", data_dir=tmp_path / "ours")
    assert len(ours) == 1998
    assert "2 images without a label are left out, 1998 remain" in ours.notes[0]
    # Those of TFDS's directory are read from its records.
    read = data.load(REAL, split="validation", data_dir=tmp_path / "theirs")
    np.testing.assert_array_equal(ours.labels, read.labels)
    np.testing.assert_array_equal(ours.label_sets, read.label_sets)
    label_sets = [tuple(row[row >= 0].tolist()) for row in ours.label_sets]
    assert label_sets.count((500, few_images[3], 7)) == 1
    assert () not in label_sets
    assert (few_images[5],) in label_sets  # each label once, whatever the file repeats
    assert max(map(len, label_sets)) == ours.label_sets.shape[1] == 3
    assert ours.class_names == tuple(synsets)
    # The images are those of the labels: class c has the picture of c % 50.
    for i in (0, 1, 1000, 1997):
        expected = data.decode(tiny(ours.labels[i]))
        np.testing.assert_array_equal(ours[i]["image"], expected)
    # A part of the split is a part of what is stored, and leaves out its own.
    part = data.load(REAL, split="validation[:10%]", data_dir=tmp_path / "ours")
    assert 198 <= len(part) <= 200
    np.testing.assert_array_equal(part.labels, ours.labels[: len(part)])


def test_labels_of_v2_are_the_numbers_of_its_folders(manual_dir, tmp_path):
    make(manual_dir, V2, compressed=True)
    prepare(V2, manual_dir=manual_dir, data_dir=tmp_path)
    read = data.load(V2, split="test", data_dir=tmp_path)
    assert sorted(read.labels.tolist()) == list(range(1000))
    assert read.class_names == tuple(archives.imagenet_synsets())
    for i in (0, 500, 999):
        expected = data.decode(archives.image(read.labels[i] % 50, 0, size=(10, 12)))
        np.testing.assert_array_equal(read[i]["image"], expected)
    left = [path.name for path in tmp_path.glob("incomplete*")]
    assert not left  # nor what was unpacked


NUMBERS = [str(i) for i in range(1000)]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (NUMBERS[:-1], "lacks the class folders 999"),
        ([*NUMBERS[:7], *NUMBERS[8:]], "lacks the class folders 7"),
        ([*NUMBERS[1:], "1000"], "count from 1"),
        (
            [f"{i:03d}" for i in range(1000)],
            "'000'.*not clear whether by their numbers or .*order of strings",
        ),
        (
            [*NUMBERS[:-1], "0999"],
            "'0999'.*not clear whether by their numbers or .*order of strings",
        ),
        (archives.imagenet_synsets(), "named by synset, n01440764"),
        ([*NUMBERS, "1000"], "not class numbers: 1000"),
        ([*NUMBERS[:-1], "²"], "lacks the class folders 999 and .*not class numbers"),
    ],
)
def test_other_folders_of_v2_are_refused(folders, message, manual_dir, tmp_path):
    make(manual_dir, V2, folders=folders)
    with pytest.raises(ValueError, match=message):
        prepare(V2, manual_dir=manual_dir, data_dir=tmp_path)


SYNSETS = archives.imagenet_synsets()


@pytest.mark.parametrize(
    ("name", "synsets", "message"),
    [
        (A, SYNSETS[:199], "has 199 class folders, but ImageNet-A has 200"),
        (R, SYNSETS, "has 1000 class folders, but ImageNet-R has 200"),
        (R, [*SYNSETS[:199], "n99999999"], "not synsets of ImageNet: n99999999"),
        (A, NUMBERS[:200], "200 class folders that are not synsets"),
        (SKETCH, SYNSETS[1:], "999 class folders, without n01440764"),
    ],
)
def test_folders_that_are_not_the_synsets_are_refused(name, synsets, message, manual_dir, tmp_path):
    make(manual_dir, name, synsets=synsets)
    with pytest.raises(ValueError, match=message):
        prepare(name, manual_dir=manual_dir, data_dir=tmp_path)


def test_images_below_class_folders_are_refused(manual_dir, tmp_path):
    extra = {f"imagenet-a/{SYNSETS[3]}/more/a.jpg": tiny(3)}
    make(manual_dir, A, changes=extra)
    with pytest.raises(ValueError, match="below the class folders"):
        prepare(A, manual_dir=manual_dir, data_dir=tmp_path)


def test_a_cut_gzip_is_refused(manual_dir, tmp_path):
    make(manual_dir, V2, compressed=True)
    (path,) = manual_dir.iterdir()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(OSError, match="cut off or damaged"):
        prepare(V2, manual_dir=manual_dir, data_dir=tmp_path)


@pytest.mark.parametrize("name", [*imagenet_sets.FIXED_NAMES, C])
def test_says_what_to_download(name, manual_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match="Download them from https://") as error:
        prepare(name, manual_dir=manual_dir, data_dir=tmp_path)
    assert str(manual_dir) in str(error.value)
    with pytest.raises(FileNotFoundError, match=f"pnoise prepare --dataset={name}"):
        data.load(name, split="test", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (lambda sets: sets[:-1], "labels for 1999 images, but there are 2000"),
        (lambda sets: [*sets, []], "labels for 2001 images"),
        (lambda sets: {str(i): s for i, s in enumerate(sets)}, "contains a dict"),
        (lambda sets: [*sets[:-1], 3], "entry of image 2000 is 3"),
        (lambda sets: [*sets[:-1], [1000]], r"entry of image 2000 is \[1000\]"),
        (lambda sets: [*sets[:-1], [1.0]], r"entry of image 2000 is \[1.0\]"),
        (lambda sets: [*sets[:-1], [True]], r"entry of image 2000 is \[True\]"),
        (lambda sets: [*sets[:-1], ["n01440764"]], "entry of image 2000"),
        (lambda sets: [*sets[1:], sets[0]], "not in the order of the images' numbers"),
        (lambda sets: [[min(x + 1, 999) for x in s] for s in sets], "do not count from 0"),
    ],
)
def test_another_real_json_is_refused(sets, message, manual_dir, tmp_path, few_images):
    made = make_real(manual_dir, few_images)
    (manual_dir / "real.json").write_text(json.dumps(sets(made)))
    with pytest.raises(ValueError, match=message):
        prepare(REAL, manual_dir=manual_dir, data_dir=tmp_path)


def test_the_true_length_of_real_json_is_50000(manual_dir, tmp_path):
    (manual_dir / "real.json").write_text(json.dumps([[1]] * 49_999))
    with pytest.raises(ValueError, match="labels for 49999 images, but there are 50000"):
        real.read_sets(manual_dir / "real.json")


@pytest.mark.parametrize("layout", ["tar", "nested tar", "folder"])
def test_corrupted_images(layout, manual_dir, tmp_path, few_images):
    options = {"extracted": layout == "folder", "prefix": "noise/" if "nested" in layout else ""}
    archives.make_imagenet_c(manual_dir, severity=3, labels=few_images[:1000], **options)
    few_images[1000:] = []
    prepared = prepare(C, manual_dir=manual_dir, data_dir=tmp_path)
    assert any("these are the published files" in note for note in prepared.notes)
    read = data.load(C, split="validation", data_dir=tmp_path)
    assert (len(read), read.image_shape, read.version) == (1000, (224, 224, 3), "1.0.0")
    expected = data.decode(archives.image(read.labels[5] % 50, 3, size=(224, 224)))
    np.testing.assert_array_equal(read[5]["image"], expected)
    assert (
        "published files"
        in json.loads((prepared.path / "preparation.json").read_text())["notes"][0]
    )


def test_a_tar_of_corruptions_is_scanned_once(manual_dir, tmp_path, few_images, monkeypatch):
    """Unless the file changes."""
    del few_images[1000:]
    archives.make_imagenet_c(manual_dir, severity=3, labels=few_images)
    scans, scan = [], corrupted.Tar.scan
    monkeypatch.setattr(corrupted.Tar, "scan", lambda self: scans.append(self) or scan(self))
    corrupted._scan.cache_clear()
    for _ in range(3):
        corrupted.plan(manual_dir, scratch=tmp_path, name=C)
    assert len(scans) == 1
    os.utime(manual_dir / "noise.tar", ns=(0, 0))
    corrupted.plan(manual_dir, scratch=tmp_path, name=C)
    assert len(scans) == 2


def test_one_name_stands_for_all_corruptions_that_are_there(tmp_path):
    (tmp_path / "noise.tar").touch()
    (tmp_path / "extra" / "spatter" / "2").mkdir(parents=True)
    (tmp_path / "fog" / "5").mkdir(parents=True)
    names = [name.partition("/")[2] for name in expand("imagenet2012_corrupted", tmp_path)]
    assert names == [
        *(f"{noise}_noise_{n}" for noise in ("gaussian", "shot", "impulse") for n in range(1, 6)),
        *("fog_5", "spatter_2"),
    ]
    assert expand("imagenet_a", tmp_path) == ["imagenet_a"]
    assert len(expand("imagenet2012_corrupted", tmp_path / "fog")) == 95


def first_image(folder):
    return f"gaussian_noise/3/{folder}/ILSVRC2012_val_00000001.JPEG"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({first_image(SYNSETS[0]): None}, "lacks class folders: n01440764"),
        ({first_image(SYNSETS[1]): b"x", first_image(SYNSETS[0]): b"x"}, "is of class n01440764"),
        ({f"gaussian_noise/3/{SYNSETS[0]}/1.JPEG": b"x"}, "not named like a validation image"),
        ({first_image("n99999999"): b"x"}, "has folders of no synset: n99999999"),
        ({first_image(SYNSETS[0]): archives.image(0, 0, size=(300, 224))}, "300 x 224 pixels"),
    ],
)
def test_other_corrupted_images_are_refused(changes, message, manual_dir, tmp_path, few_images):
    del few_images[1000:]
    archives.make_imagenet_c(
        manual_dir, severity=3, labels=few_images, size=(224, 224), changes=changes
    )
    with pytest.raises(ValueError, match=message):
        prepare(C, manual_dir=manual_dir, data_dir=tmp_path)


def test_a_tar_without_the_severity_and_a_short_side_are_refused(manual_dir, tmp_path, few_images):
    del few_images[1000:]
    archives.make_imagenet_c(manual_dir, severity=3, labels=few_images, size=(224, 224))
    with pytest.raises(ValueError, match="has no folder gaussian_noise/4"):
        prepare(C.replace("_3", "_4"), manual_dir=manual_dir, data_dir=tmp_path)
    with pytest.raises(ValueError, match="already have 224 x 224 pixels"):
        prepare(C, manual_dir=manual_dir, data_dir=tmp_path, short_side=100)
    with pytest.raises(ValueError, match="did you mean 'imagenet2012_corrupted/gaussian_noise_3'"):
        prepare("imagenet2012_corrupted/gausian_noise_3", manual_dir=manual_dir, data_dir=tmp_path)


def test_a_restricted_set_has_the_classes_of_the_whole_split(manual_dir, tmp_path):
    make(manual_dir, A, per_class=2)
    prepare(A, manual_dir=manual_dir, data_dir=tmp_path)
    whole = data.load(A, split="test", data_dir=tmp_path)
    part = data.load(A, split="test[:30]", data_dir=tmp_path)
    assert len(np.unique(part.labels)) < 31
    for read in (whole, part):
        restricted = read.restricted()
        assert (restricted.num_classes, read.num_classes) == (200, 1000)
        assert restricted.outputs == tuple(range(3, 1000, 5))
        np.testing.assert_array_equal(np.array(restricted.outputs)[restricted.labels], read.labels)
        assert restricted.class_names == tuple(SYNSETS[3::5])


def test_tfds_own_corrupted_set_is_named(manual_dir, tmp_path, few_images):
    """A directory of TFDS's version is read, and a note says that it is not the published one."""
    del few_images[1000:]
    archives.make_imagenet_c(manual_dir, severity=3, labels=few_images)
    path = prepare(C, manual_dir=manual_dir, data_dir=tmp_path).path
    path.rename(path.with_name("3.1.0"))
    again = prepare(C, manual_dir=manual_dir, data_dir=tmp_path)
    assert not again.is_new
    assert any("TFDS has made these images" in note for note in again.notes)
