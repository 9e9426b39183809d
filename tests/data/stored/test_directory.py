"""Prepared TFDS directories, as TFDS leaves them: formats, versions, damage."""

import io
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pnoise_jax import data
from pnoise_jax.data import notice
from pnoise_jax.data.stored import records
from tests.data import tfrecords


class Flags(tfds.core.GeneratorBasedBuilder):
    """Plain images of different sizes, PNG, in two splits, in several shards."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["red", "green", "blue"]),
                    "file_name": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(60), "test": self._generate_examples(12)}

    def _generate_examples(self, number):
        for i in range(number):
            yield i, {"image": encode(i), "label": i % 3, "file_name": f"{i}.png"}


def encode(i):
    pixels = np.full((8 + i % 5, 9 + i % 7, 3), 3 * i, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """<data_dir>/flags/1.2.0 in array_record."""
    directory = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
    Flags(data_dir=directory, file_format="array_record").download_and_prepare(
        download_config=config
    )
    return directory


@pytest.fixture
def data_dir(prepared, tmp_path, monkeypatch):
    """A copy, with its own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(prepared, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def as_tfrecord(data_dir):
    """The same records in the same order as tfrecord files, which TFDS writes with TensorFlow."""
    tfrecords.convert(data_dir / "flags" / "1.2.0")
    return data_dir


def assert_same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    for first, second in zip(a, b, strict=True):
        np.testing.assert_array_equal(first["image"], second["image"])


def test_what_tfds_prepared_is_read(data_dir):
    dataset = data.load("flags", split="train", data_dir=data_dir)
    assert dataset.num_classes == 3
    assert dataset.image_shape is None
    source = tfds.builder_from_directory(data_dir / "flags" / "1.2.0").as_data_source("train")
    for ours, theirs in zip(dataset, source, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        assert ours["label"] == theirs["label"]
    assert isinstance(dataset.images[0], bytes)
    with pytest.raises(IndexError):
        dataset[60]


@pytest.mark.parametrize(
    "split", ["train[1shard]", "train[1shard:]", "train[:-1shard]+test", "train[-1shard:]"]
)
def test_a_split_can_consist_of_whole_files(data_dir, split):
    dataset = data.load("flags", split=split, data_dir=data_dir)
    source = tfds.builder_from_directory(data_dir / "flags" / "1.2.0").as_data_source(split)
    assert dataset.labels.tolist() == [example["label"] for example in source]
    for ours, theirs in zip(dataset, source, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


def test_a_file_that_a_split_does_not_have_is_refused(data_dir):
    with pytest.raises(ValueError, match=r"split='train\[3shard\]' .* A part of it is empty"):
        data.load("flags", split="train[3shard]", data_dir=data_dir)


@pytest.mark.parametrize("split", ["train", "test", "train[5:42]", "train[30:]+test[:2]"])
@pytest.mark.parametrize("cache", [False, True])
def test_tfrecord_is_read_as_array_record_is(data_dir, prepared, request, split, cache):
    expected = data.load("flags", split=split, data_dir=prepared)
    request.getfixturevalue("as_tfrecord")
    assert_same(data.load("flags", split=split, data_dir=data_dir, cache=cache), expected)
    assert_same(data.load("flags", split=split, data_dir=data_dir, cache=cache), expected)


def test_workers_share_a_tfrecord_data_set(as_tfrecord):
    dataset = data.load("flags", split="train", data_dir=as_tfrecord)
    transform = data.create_transform(
        "random_resized_crop", size=(4, 4), mean=(0.5,), std=(0.5,), train=True, field="f"
    )

    def batches(**options):
        options = {"batch_size": 8, "seed": 0, "start_step": 0, "num_steps": 6, **options}
        with data.train_batches(dataset, transform=transform, **options) as iterator:
            return [batch["image"].tobytes() for batch in iterator]

    assert batches(num_threads=0) == batches(num_threads=2, num_workers=2)


def test_labels_and_index_are_read_once(as_tfrecord, tmp_path):
    expected = data.load("flags", split="train", data_dir=as_tfrecord).labels
    kept = {path.name: path for path in (tmp_path / "cache").rglob("*.npy")}
    assert "labels-train.npy" in kept
    assert len(kept) == 4  # and where the records of three shards are
    np.save(kept["labels-train.npy"], expected[::-1])  # is it read?
    dataset = data.load("flags", split="train", data_dir=as_tfrecord)
    np.testing.assert_array_equal(dataset.labels, expected[::-1])
    i = np.flatnonzero(expected != expected[::-1])[0]
    with pytest.raises(
        OSError,
        match=rf"image {i} of flags's split 'train' .*its record says label {expected[i]}, but "
        rf".*cache.*labels-train\.npy says {expected[::-1][i]}",
    ):
        list(dataset)
    kept["labels-train.npy"].write_bytes(b"broken")
    labels = data.load("flags", split="train", data_dir=as_tfrecord).labels
    np.testing.assert_array_equal(labels, expected)


def test_cached_labels_of_other_files_are_not_used(data_dir):
    """Those of records that were in the same place before."""
    expected = data.load("flags", split="train", data_dir=data_dir).labels
    first, _, third = sorted((data_dir / "flags" / "1.2.0").glob("*train*"))
    contents = first.read_bytes(), third.read_bytes()
    first.write_bytes(contents[1])
    third.write_bytes(contents[0])
    dataset = data.load("flags", split="train", data_dir=data_dir)
    exchanged = np.concatenate([expected[40:], expected[20:40], expected[:20]])
    np.testing.assert_array_equal(dataset.labels, exchanged)
    assert [example["label"] for example in dataset] == exchanged.tolist()


def test_the_newest_version_is_taken(data_dir):
    shutil.copytree(data_dir / "flags" / "1.2.0", data_dir / "flags" / "1.10.0")
    (data_dir / "flags" / "2.0.0").mkdir()  # incomplete
    np.save(data_dir / "flags" / "1.10.0" / "labels-test.npy", np.full(12, 2, np.int32))
    assert set(data.load("flags", split="test", data_dir=data_dir).labels) == {2}
    shutil.rmtree(data_dir / "flags" / "1.10.0")
    assert set(data.load("flags", split="test", data_dir=data_dir).labels) == {0, 1, 2}


@pytest.mark.parametrize("name", ["imagenet2012", "office_home", "folder/flowers"])
def test_the_error_tells_how_to_prepare_a_data_set(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"pnoise prepare --dataset={name} --manual_dir"):
        data.load(name, split="train", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["../flags", "flags/1.2.0/x/y", "", "/tmp"])
def test_a_name_does_not_lead_elsewhere(name, data_dir):
    with pytest.raises(ValueError, match=r"data\.name=.* is unknown"):
        data.load(name, split="train", data_dir=data_dir / "flags")


def test_a_damaged_record_is_named(data_dir, prepared):
    directory = data_dir / "flags" / "1.2.0"
    labels = data.load("flags", split="train", data_dir=data_dir).labels
    np.save(directory / "labels-train.npy", labels)
    file = next(directory.glob("*train*00001*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 3 :] = bytes(len(content) - len(content) // 3)
    file.write_bytes(content)
    dataset = data.load("flags", split="train", data_dir=data_dir)
    intact = data.load("flags", split="train", data_dir=prepared)
    np.testing.assert_array_equal(dataset[0]["image"], intact[0]["image"])  # of another file
    with pytest.raises(
        OSError, match=r"image 25 of flags's .* \(.*train.*00001.* cannot be opened"
    ):
        dataset[25]
    (directory / "labels-train.npy").unlink()
    with pytest.raises(OSError, match=r"train.*00001.* cannot be opened"):
        data.load("flags", split="train", data_dir=data_dir)  # its labels are in the records


def test_a_file_with_too_few_records_is_named(data_dir):
    """As after a copy of another preparation's file."""
    directory = data_dir / "flags" / "1.2.0"
    np.save(directory / "labels-train.npy", np.zeros(60, np.int32))
    file = next(directory.glob("*train*00002*"))
    file.write_bytes(next(directory.glob("*test*00000*")).read_bytes())
    dataset = data.load("flags", split="train", data_dir=data_dir)
    with pytest.raises(
        OSError, match=r"image 59 of flags's .*00002.* has \d+ records \(dataset_inf"
    ):
        dataset[59]


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b""])
def test_an_invalid_record_is_named(data_dir, monkeypatch, content):
    dataset = data.load("flags", split="test", data_dir=data_dir)
    monkeypatch.setattr(records.Records, "__getitem__", lambda whole, i: content)
    with pytest.raises(OSError, match=rf"image 3 of .* damaged record, of {len(content)} bytes"):
        dataset[3]


def test_a_tfrecord_file_that_changed_since_it_was_searched_is_named(as_tfrecord):
    file = next((as_tfrecord / "flags" / "1.2.0").glob("*train*00001*"))
    content = file.read_bytes()
    dataset = data.load("flags", split="train", data_dir=as_tfrecord)
    file.write_bytes(content[:-7])
    with pytest.raises(OSError, match=r"train.*00001.* has changed or is cut off"):
        list(dataset.images)
    for changed, problem in (
        (b"\x01" + content[1:], r"is damaged at byte 0 \(wrong checksum of a length"),
        (content[:-7], "is cut off"),
        (b"", "is empty"),
        (content + content, r"has \d+ records \(dataset_info.json says"),
    ):
        file.write_bytes(changed)
        with pytest.raises(OSError, match=rf"train.*00001.* {problem}"):
            data.load("flags", split="train", data_dir=as_tfrecord)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(12) % 3 + 1000, "labels from 1000 to 1002, but there are 3 classes, 0 to 2"),
        (np.full(12, -1), "labels from -1 to -1.* without labels"),
        (np.zeros(12), r"float64 \(12,\), but 12 integers are expected"),
        (np.zeros(11, int), r"int64 \(11,\), but 12 integers are"),
        (b"", "cannot be read"),
        (b"garbage", "cannot be read"),
    ],
)
def test_an_invalid_labels_file_is_named(data_dir, labels, message):
    file = data_dir / "flags" / "1.2.0" / "labels-test.npy"
    file.write_bytes(labels) if isinstance(labels, bytes) else np.save(file, labels)
    with pytest.raises(OSError, match=rf"labels-test\.npy:? .*{message}.*delete"):
        data.load("flags", split="test", data_dir=data_dir)


def test_a_split_without_labels_is_refused(data_dir, monkeypatch):
    """As TFDS stores the test split of ImageNet."""
    monkeypatch.setattr(records, "image_and_label", lambda record, label: (b"", -1))
    with pytest.raises(OSError, match=r"1\.2\.0, split 'test': labels from -1 to -1"):
        data.load("flags", split="test", data_dir=data_dir)


@pytest.mark.parametrize("data_set", ["data_dir", "as_tfrecord"])
def test_reading_many_labels_reports_progress(data_set, request, monkeypatch, capsys):
    """And that it happens only once, unless the labels cannot be cached."""
    monkeypatch.setattr(notice, "MANY", 50)
    path = request.getfixturevalue(data_set)
    data.load("flags", split="train", data_dir=path)
    printed = capsys.readouterr().err
    assert "the labels of" in printed
    assert "once: 60 records\n" in printed
    assert "once: 100 %\n" in printed
    assert ("indexing the records of" in printed) == (data_set == "as_tfrecord")
    data.load("flags", split="train", data_dir=path)
    assert not capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self")
    data.load("flags", split="train", data_dir=path)
    assert "cannot cache labels-train.npy in /proc/self/pnoise_jax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('{"format": 99, "short_side": null}', ValueError, r"another version .*\(format 99"),
        ("", OSError, r"preparation\.json cannot be read as what pnoise prepare writes"),
        ("{}", OSError, r"preparation\.json cannot be read as what pnoise prepare writes"),
    ],
)
def test_preparation_json_is_checked(data_dir, content, error, message):
    (data_dir / "flags" / "1.2.0" / "preparation.json").write_text(content)
    with pytest.raises(error, match=message):
        data.load("flags", split="test", data_dir=data_dir)


def test_a_tfrecord_file_that_is_cut_off_is_named(as_tfrecord):
    file = next((as_tfrecord / "flags" / "1.2.0").glob("*train*00001*"))
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(OSError, match=r"train.*00001.* is cut off"):
        data.load("flags", split="train", data_dir=as_tfrecord)


def test_a_missing_file_is_named(data_dir):
    file = next((data_dir / "flags" / "1.2.0").glob("*train*00001*"))
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"train.*00001.* is missing"):
        data.load("flags", split="train", data_dir=data_dir)


def test_an_image_that_cannot_be_decoded_is_named(data_dir):
    dataset = data.load("flags", split="test", data_dir=data_dir, cache=True)
    dataset.images[3] = dataset.images[3][:40]
    with pytest.raises(OSError, match=r"image 3 of flags's split 'test' cannot be read"):
        dataset[3]


def test_metadata_of_another_tfds_are_named(data_dir):
    features = data_dir / "flags" / "1.2.0" / "features.json"
    features.write_text(features.read_text().replace("ClassLabel", "ClassLabelOfTomorrow"))
    with pytest.raises(OSError, match=r"prepared by another version\?"):
        data.load("flags", split="test", data_dir=data_dir)


def test_a_data_set_without_labels_is_refused(data_dir):
    features = data_dir / "flags" / "1.2.0" / "features.json"
    features.write_text(features.read_text().replace('"label"', '"species"'))
    with pytest.raises(
        ValueError,
        match=r"has the features file_name, image, species.*an 'image' and a class 'label'",
    ):
        data.load("flags", split="test", data_dir=data_dir)
