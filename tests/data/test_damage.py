"""Damage to a prepared data set: an error names it, at the latest when that part is read.

Each is tried on what `launch.prepare` writes, on what an earlier version of it wrote (without
checksums of files), and on what TFDS prepares, as array_record and as tfrecord.
"""

import json
import os
import random
import shutil

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from pnoise_jax import data
from pnoise_jax.data import manifest, prepare
from tests.data import archives, tfrecords

KINDS = ("ours", "old", "tfds", "tfrecord")
HAVE_LABELS = KINDS[:2]  # files of them, beside the records


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """By kind: a data_dir with folder/pets, of two classes, 20 images in "train", 20 in "test"."""
    root = tmp_path_factory.mktemp("intact")
    archives.make_folder(root / "manual", per_class=10, classes=("cat", "dog"))
    prepare.prepare("folder/pets", manual_dir=root / "manual", data_dir=root / "ours")
    for kind in KINDS[1:]:
        shutil.copytree(root / "ours", root / kind)
        directory = root / kind / "folder/pets/1.0.0"
        if kind == "old":
            (directory / "preparation.json").write_text('{"format": 1, "short_side": null}')
        elif kind == "tfrecord":
            tfrecords.convert(directory)
        else:
            for path in [*directory.glob("labels-*.npy"), directory / "preparation.json"]:
                path.unlink()
    return root


@pytest.fixture
def copy(intact, tmp_path, monkeypatch):
    """Makes a copy of a kind, with its own cache, and returns the directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(kind):
        shutil.copytree(intact / kind, tmp_path / "data")
        return tmp_path / "data" / "folder/pets/1.0.0"

    return make


def read(directory, split="train", **options):
    """Every image and label of a split, in order."""
    data_dir = directory.parents[2]
    dataset = data.load("folder/pets", split=split, data_dir=data_dir, **options)
    return [(bytes(image), int(i)) for image, i in zip(dataset.images, dataset.labels, strict=True)]


def shard(directory, split="train"):
    (path,) = directory.glob(f"folder-{split}.*record-*")
    return path


def change(path, edit):
    """Rewrites a file: edit(bytearray) -> bytes, or None if edited in place."""
    content = bytearray(path.read_bytes())
    edited = edit(content)
    path.write_bytes(content if edited is None else edited)


def change_records(path, edit):
    """Rewrites records, edit(list of Example), with checksums that are right."""
    assert "array_record" in path.name
    source = ArrayRecordDataSource(str(path))
    examples = [tf_example_pb2.Example.FromString(source[i]) for i in range(len(source))]
    edit(examples)
    path.unlink()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for example in examples:
        writer.write(example.SerializeToString())
    writer.close()


def change_json(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def flip(content, *positions):
    for i in positions:
        content[i] ^= 0xFF


def image_of(example):
    return example.features.feature["image"].bytes_list.value


def label_of(example):
    return example.features.feature["label"].int64_list.value


def test_the_kinds_are_alike(intact, tmp_path, monkeypatch, capsys):
    """All can be read if undamaged; a line says where no checksums are known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split in ("train", "test"):
        examples = {kind: read(intact / kind / "folder/pets/1.0.0", split) for kind in KINDS}
        assert all(examples[kind] == examples["ours"] for kind in KINDS)
        assert len(examples["ours"]) == 20
    (line,) = capsys.readouterr().err.splitlines()
    assert "old/folder/pets/1.0.0 was prepared before checksums were recorded" in line


# Files of records

FILES = {
    "flipped": lambda file: change(file, lambda x: flip(x, len(x) // 20)),
    "flipped often": lambda file: change(file, lambda x: flip(x, *range(99, len(x), 997))),
    "cut off": lambda file: change(file, lambda x: x[: len(x) // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "zeroed": lambda file: change(file, lambda x: bytes(len(x))),
    "zeroed from the middle": lambda file: change(file, lambda x: x[:8000] + bytes(len(x) - 8000)),
    "of another split": lambda file: shutil.copy(
        file.with_name(file.name.replace("train", "test")), file
    ),
    "missing": lambda file: file.unlink(),
    "a directory": lambda file: (file.unlink(), file.mkdir()),
    "a dangling link": lambda file: (file.unlink(), file.symlink_to("nowhere")),
    "text": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FILES)
def test_a_damaged_file_of_records(copy, kind, fault):
    directory = copy(kind)
    expected = read(directory, "test")
    file = shard(directory)
    FILES[fault](file)
    if fault == "of another split" and kind in ("tfds", "tfrecord"):
        # As many whole records, with labels: what TFDS leaves does not say whose they are.
        assert read(directory) == expected
        return
    with pytest.raises(OSError, match=rf"{file.name}|its record says label \d, but .*labels-train"):
        read(directory)
    assert read(directory, "test") == expected  # the other split is whole


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_no_changed_byte_passes(copy, kind):
    """At any place in a file of records: an error, or what is read stays the same."""
    directory = copy(kind)
    file, expected = shard(directory), read(directory)
    content = file.read_bytes()
    generator, errors = random.Random(0), 0
    used = len(content.partition(bytes(1000))[0])  # then there is padding
    for i in [*range(24), *(generator.randrange(used) for _ in range(60))]:
        file.write_bytes(content[:i] + bytes([content[i] ^ (1 << i % 8)]) + content[i + 1 :])
        try:
            assert read(directory) == expected
        except OSError as error:
            assert file.name in str(error)  # noqa: PT017, not every byte is used
            errors += 1
    # array_record does not need the 24 bytes at the head of its first block.
    assert errors == 84 if kind in ("ours", "tfrecord") else errors > 50


@pytest.mark.parametrize("kind", ["ours", "old"])
def test_records_of_another_preparation(copy, kind):
    """Intact ones, with the labels of other images."""
    directory = copy(kind)
    change_records(shard(directory), lambda examples: examples.reverse())
    with pytest.raises(OSError, match=r"has changed since|its record says label"):
        read(directory)


def test_images_of_another_preparation(copy):
    """Names, labels and order are the same: only the files' checksums tell."""
    directory = copy("ours")

    def exchange(examples):
        (a, b) = [image_of(example) for example in examples if label_of(example)[0] == 1][:2]
        a[0], b[0] = b[0], a[0]

    change_records(shard(directory), exchange)
    with pytest.raises(
        OSError, match=rf"{shard(directory).name} has changed since it was prepared"
    ):
        read(directory)


def test_for_much_data_only_sizes_are_compared(copy, monkeypatch):
    monkeypatch.setattr(manifest, "_READ_WHOLE", 1)
    directory = copy("ours")
    expected = read(directory)
    assert manifest.read(directory).check_all() == 7
    file = shard(directory)
    change(file, lambda x: flip(x, len(x) - (1 << 16) - 9))  # in the padding: nothing is lost
    assert read(directory) == expected
    with pytest.raises(OSError, match=rf"{file.name} has changed since it was prepared \(crc32c"):
        manifest.read(directory).check_all()
    change(file, lambda x: x + b"x")
    with pytest.raises(OSError, match=r"has changed since it was prepared \(131073 bytes instead"):
        read(directory)


RECORDS = {
    "a cut image": (lambda e: image_of(e).__setitem__(0, image_of(e)[0][:40]), "image 7 of folder"),
    "no image": (lambda e: image_of(e).__setitem__(0, b"hello"), "image 7 of folder"),
    "an empty image": (lambda e: image_of(e).__setitem__(0, b""), "image 7 of folder"),
    "without an image": (lambda e: e.features.feature["image"].Clear(), "without 'image'"),
    "without a label": (lambda e: e.features.feature["label"].Clear(), "without 'label'"),
    "another label": (lambda e: label_of(e).__setitem__(0, 1 - label_of(e)[0]), "says label"),
    "a label too large": (lambda e: label_of(e).__setitem__(0, 77), "label 77|to 77, but there"),
    "a negative label": (lambda e: label_of(e).__setitem__(0, -1), "label -1|labels from -1 to"),
}


@pytest.mark.parametrize("kind", ["ours", "old", "tfds"])
@pytest.mark.parametrize("fault", RECORDS)
def test_a_record_that_is_wrong(copy, kind, fault):
    """Its checksum is right."""
    directory = copy(kind)
    edit, message = RECORDS[fault]
    change_records(shard(directory), lambda examples: edit(examples[7]))
    if kind == "tfds" and fault == "another label":
        return  # the record is all there is
    with pytest.raises(OSError, match=f"has changed since|{message}"):
        list(data.load("folder/pets", split="train", data_dir=directory.parents[2]))


# Labels

LABELS = {
    "reversed": lambda labels: labels[::-1],
    "rotated": lambda labels: np.roll(labels, 1),
    "one changed": lambda labels: np.where(np.arange(len(labels)) == 3, 1 - labels, labels),
    "too large": lambda labels: np.where(np.arange(len(labels)) == 3, 77, labels),
    "negative": lambda labels: np.where(np.arange(len(labels)) == 3, -1, labels),
    "real": lambda labels: labels.astype(float),
    "not a number": lambda labels: np.full(len(labels), np.nan),
    "too few": lambda labels: labels[:-1],
    "of two columns": lambda labels: np.stack([labels, labels], axis=1),
    "text": lambda labels: labels.astype(str),
}


@pytest.mark.parametrize("kind", HAVE_LABELS)
@pytest.mark.parametrize("fault", LABELS)
def test_wrong_labels(copy, kind, fault):
    """They are never used: at the latest the first image with a wrong label is refused."""
    directory = copy(kind)
    file = directory / "labels-train.npy"
    np.save(file, LABELS[fault](np.load(file)))
    if kind == "ours":
        with pytest.raises(OSError, match=r"labels-train\.npy has changed since it was prepared"):
            data.load("folder/pets", split="train[:5]", data_dir=directory.parents[2])
    with pytest.raises(OSError, match=r"labels-train\.npy"):
        read(directory)
    file.unlink()
    assert len(read(directory)) == 20  # as the message advises


@pytest.mark.parametrize("kind", HAVE_LABELS)
@pytest.mark.parametrize(
    "content", [b"", b"garbage", "cut off", "pickled", "an npz", "beyond memory", "a pipe"]
)
def test_labels_that_cannot_be_read(copy, kind, content):
    directory = copy(kind)
    file = directory / "labels-train.npy"
    if content == "pickled":
        np.save(file, np.array([print], object))
    elif content == "an npz":
        with open(file, "wb") as stream:
            np.savez(stream, np.zeros(20, np.int32))
    elif content == "a pipe":
        file.unlink()
        os.mkfifo(file)
    elif content == "beyond memory":
        file.write_bytes(
            file.read_bytes().replace(b"(20,), }" + b" " * 12, b"(20000000000000,), }")
        )
    else:
        file.write_bytes(file.read_bytes()[:100] if content == "cut off" else content)
    with pytest.raises(OSError, match=r"labels-train\.npy .*delete"):
        read(directory)


@pytest.mark.parametrize("kind", ["tfds", "tfrecord"])
@pytest.mark.parametrize("cache", [False, True])
def test_wrong_labels_in_the_cache(copy, kind, cache, tmp_path):
    directory = copy(kind)
    read(directory)
    (file,) = (tmp_path / "cache").rglob("labels-train.npy")
    labels = np.load(file)
    np.save(file, labels[::-1])
    i = int(np.flatnonzero(labels != labels[::-1])[0])
    message = rf"its record says label {labels[i]}, but {file} says {1 - labels[i]}.*delete"
    with pytest.raises(OSError, match=message):
        read(directory, cache=cache)
    file.unlink()
    assert [label for _, label in read(directory)] == labels.tolist()


def test_a_wrong_label_is_named_in_a_batch(copy):
    directory = copy("old")
    file = directory / "labels-train.npy"
    np.save(file, np.load(file)[::-1])
    dataset = data.load("folder/pets", split="train[10:]+test", data_dir=directory.parents[2])
    message = r"image \d of folder/pets's split 'train\[10:\]\+test' .*labels-train\.npy says"
    options = {"batch_size": 20, "seed": 0, "start_step": 0, "num_steps": 2}
    with (
        data.train_batches(dataset, **options) as batches,
        pytest.raises(OSError, match=message),
    ):
        list(batches)


# Files beside the records

METADATA = {
    "junk": ("dataset_info.json", lambda file: file.write_text("{")),
    "nothing": ("dataset_info.json", lambda file: file.write_text("{}")),
    "null": ("dataset_info.json", lambda file: file.write_text("null")),
    "too many": (
        "dataset_info.json",
        lambda file: change_json(file, lambda x: x["splits"][1].update(shardLengths=["1000"])),
    ),
    "too few": (
        "dataset_info.json",
        lambda file: change_json(file, lambda x: x["splits"][1].update(shardLengths=["19"])),
    ),
    "no number": (
        "dataset_info.json",
        lambda file: change_json(file, lambda x: x["splits"][1].update(shardLengths=["x"])),
    ),
    "no splits": (
        "dataset_info.json",
        lambda file: change_json(file, lambda x: x.update(splits=[])),
    ),
    "another format": (
        "dataset_info.json",
        lambda file: change_json(file, lambda x: x.update(fileFormat="riegeli")),
    ),
    "a list": ("features.json", lambda file: file.write_text("[]")),
    "no features": ("features.json", lambda file: file.unlink()),
    "one name": ("label.labels.txt", lambda file: file.write_text("cat\n")),
    "one name twice": ("label.labels.txt", lambda file: file.write_text("cat\ncat\n")),
    "three names": ("label.labels.txt", lambda file: file.write_text("cat\ndog\nowl\n")),
    "no names": ("label.labels.txt", lambda file: file.write_text("\n")),
    "no UTF-8": ("label.labels.txt", lambda file: file.write_bytes(b"caf\xe9\ndog\n")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", METADATA)
def test_damaged_metadata(copy, kind, fault):
    directory = copy(kind)
    name, damage = METADATA[fault]
    damage(directory / name)
    with pytest.raises((OSError, ValueError), match=str(directory)):
        read(directory)
    if kind == "ours":
        with pytest.raises(
            OSError, match=rf"{name} (has changed since it was prepared|is missing)"
        ):
            read(directory)


def test_a_pipe_in_place_of_the_preparation_is_not_waited_for(copy):
    directory = copy("ours")
    (directory / "preparation.json").unlink()
    os.mkfifo(directory / "preparation.json")
    with pytest.raises(OSError, match=r"preparation\.json cannot be read .*not a regular file"):
        read(directory)


def test_exchanged_names_of_classes(copy):
    directory = copy("ours")
    file = directory / "label.labels.txt"
    file.write_text("\n".join(file.read_text().split()[::-1]) + "\n")
    with pytest.raises(OSError, match=r"label\.labels\.txt has changed since it was prepared"):
        read(directory)


@pytest.mark.parametrize(
    "content",
    [
        *("", "x", "[]", "{}", "null", "[" * 100_000, '{"format": 1, "files": []}'),
        '{"format": 1, "files": {"features.json": null}}',
        '{"format": 1, "files": {"features.json": {"size": "1", "crc32c": "0"}}}',
        '{"format": 1, "files": {"features.json": {"size": 1}}}',
    ],
)
def test_a_damaged_preparation(copy, content):
    directory = copy("ours")
    (directory / "preparation.json").write_text(content)
    with pytest.raises(OSError, match=r"preparation\.json cannot be read as what pnoise prepare"):
        read(directory)
