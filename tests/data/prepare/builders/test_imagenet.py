"""ImageNet from tars in the official layout: TFDS's records, order and shards; bad tars refused."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image
from tensorflow_datasets.core.utils import shard_utils
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as official
from tensorflow_datasets.proto import tf_example_pb2

from pnoise_jax import data
from pnoise_jax.data import prepare as preparation
from pnoise_jax.data.prepare.writing import treatment
from tests.data import archives

CMYK, PNG = "n01739381_1309.JPEG", "n02105855_2933.JPEG"  # TFDS repairs these
GRAY = "n01440764_7.JPEG"


def prepare(manual_dir, data_dir, **options):
    return preparation.prepare("imagenet2012", manual_dir=manual_dir, data_dir=data_dir, **options)


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory):
    """Both tars: 2 images of each synset and some odd ones; all 50 000 validation images."""
    directory = tmp_path_factory.mktemp("manual")
    pixels = Image.open(io.BytesIO(archives.image(7, 7)))
    odd = {
        CMYK: archives.encode(pixels.convert("CMYK")),
        PNG: archives.encode(pixels, format="PNG"),
        GRAY: archives.encode(pixels.convert("L")),
    }
    archives.make_imagenet(directory, train_per_class=2, size=(10, 12), changes=odd)
    return directory


@pytest.fixture(scope="module")
def small_shards():
    """TFDS's rule, with smaller shards, so that there are several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_utils.ShardConfig, "min_shard_size", 1 << 18)
        yield


@pytest.fixture(scope="module")
def data_dir(manual_dir, small_shards, tmp_path_factory):
    directory = tmp_path_factory.mktemp("ours")
    prepare(manual_dir, directory)
    return directory


class Stock(official.Builder, skip_registration=True):
    """TFDS's own builder, with the standard library where it calls TensorFlow."""

    name = "imagenet2012"
    pkg_dir_path = tfds.core.tfds_path("datasets/imagenet2012")

    def _split_generators(self, dl_manager):
        paths = [dl_manager.manual_dir / f"ILSVRC2012_img_{part}.tar" for part in ("train", "val")]
        with tarfile.open(paths[1]) as tar:
            labels = dict(zip(sorted(tar.getnames()), validation_synsets(), strict=True))
        return [
            tfds.core.SplitGenerator("train", {"archive": members(paths[0])}),
            tfds.core.SplitGenerator(
                "validation", {"archive": members(paths[1]), "validation_labels": labels}
            ),
        ]

    def _fix_image(self, image_fname, image):
        if image_fname in official.CMYK_IMAGES + official.PNG_IMAGES:
            return io.BytesIO(treatment.treat(image.read(), rule="repair").data)
        return image


def validation_synsets():
    return archives.imagenet_validation_synsets()


def members(file, method=None):
    """What TFDS's iter_archive yields, in the order of the tar."""
    source = {"fileobj": file} if hasattr(file, "read") else {"name": file}
    with tarfile.open(mode="r|", **source) as tar:
        for member in tar:
            yield member.name, tar.extractfile(member)


@pytest.fixture(scope="module")
def stock_dir(manual_dir, small_shards, tmp_path_factory):
    """The same tars, prepared by TFDS's own code."""
    directory = tmp_path_factory.mktemp("stock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds.download, "iter_archive", members)
        builder = Stock(data_dir=directory, file_format="array_record")
        options = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
        builder.download_and_prepare(download_config=options)
    return directory


def read_records(data_dir, split):
    """The records of each file, with their fields sorted, as TFDS does not."""
    files = sorted((data_dir / "imagenet2012" / "5.1.0").glob(f"*-{split}.array_record*"))
    shards = {}
    for file in files:
        with ArrayRecordDataSource(str(file)) as source:
            examples = [tf_example_pb2.Example.FromString(record) for record in source]
        shards[file.name] = [e.SerializeToString(deterministic=True) for e in examples]
    return shards


@pytest.mark.slow
def test_it_is_what_tfds_prepares(data_dir, stock_dir):
    """The records, their order and shards, the features; and it loads."""
    path = "imagenet2012/5.1.0"
    infos = [tfds.builder_from_directory(d / path).info for d in (data_dir, stock_dir)]
    for split in ("train", "validation"):
        ours, theirs = read_records(data_dir, split), read_records(stock_dir, split)
        assert len(ours) >= 4
        assert ours == theirs
        assert infos[0].splits[split].shard_lengths == infos[1].splits[split].shard_lengths
        assert infos[0].splits[split].num_bytes == infos[1].splits[split].num_bytes
    features = [(d / path / "features.json").read_text() for d in (data_dir, stock_dir)]
    assert json.loads(features[0]) == json.loads(features[1])

    train = data.load("imagenet2012", split="train", data_dir=data_dir)
    assert (len(train), train.num_classes) == (2003, 1000)
    assert set(np.bincount(train.labels, minlength=1000)) == {2, 3}
    validation = data.load("imagenet2012", split="validation", data_dir=data_dir)
    assert (np.bincount(validation.labels) == 50).all()
    assert validation[0]["image"].shape == (10, 12, 3)


def test_only_the_images_that_tfds_repairs_are_changed(manual_dir, small_shards, tmp_path):
    """As RGB JPEG; the gray one keeps its bytes."""
    only = tmp_path / "manual"
    only.mkdir()
    os.link(manual_dir / "ILSVRC2012_img_train.tar", only / "ILSVRC2012_img_train.tar")
    prepared = prepare(only, tmp_path)
    assert prepared.changes == {"CMYK to RGB": 1, "PNG to JPEG": 1}
    assert any("2 images are repaired, as in TFDS" in note for note in prepared.notes)
    assert any("no ILSVRC2012_img_val.tar" in note for note in prepared.notes)
    images = {}
    for records in read_records(tmp_path, "train").values():
        for record in records:
            feature = tf_example_pb2.Example.FromString(record).features.feature
            name = feature["file_name"].bytes_list.value[0].decode()
            images[name] = feature["image"].bytes_list.value[0]
    original = np.asarray(Image.open(io.BytesIO(archives.image(7, 7))), int)
    for name in (CMYK, PNG):
        repaired = Image.open(io.BytesIO(images[name]))
        assert (repaired.format, repaired.mode) == ("JPEG", "RGB")
        assert np.abs(np.asarray(repaired, int) - original).mean() < 6
    assert Image.open(io.BytesIO(images[GRAY])).mode == "L"
    assert images["n01440764_1.JPEG"] == archives.image(0, 1, size=(10, 12))


# Bad tars


def test_says_what_to_download(tmp_path):
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").touch()
    with pytest.raises(FileNotFoundError) as error:
        prepare(tmp_path, tmp_path / "data")
    for word in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "image-net.org", "devkit"):
        assert word in str(error.value)
    assert not list((tmp_path / "data").iterdir())


def test_truncated_tar(tmp_path):
    """In a header, in an image, right behind an image, and without the end mark."""
    archives.make_imagenet(tmp_path, train_per_class=0, validation=20)
    path = tmp_path / "ILSVRC2012_img_val.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        tenth, last = tar.getmembers()[10], tar.getmembers()[-1]
    behind = last.offset_data + -(-last.size // 512) * 512
    for end in (tenth.offset + 100, tenth.offset_data + 100, tenth.offset, behind):
        path.write_bytes(whole[:end])
        with pytest.raises(OSError, match=r"ILSVRC2012_img_val.tar is (cut off|no whole)"):
            prepare(tmp_path, tmp_path / "data")


@pytest.mark.parametrize("cut", ["in an image", "behind an image", "without the end mark"])
def test_truncated_inner_tar(manual_dir, tmp_path, cut):
    """The outer tar is whole."""
    with tarfile.open(manual_dir / "ILSVRC2012_img_train.tar") as tar:
        tars = {member.name: tar.extractfile(member).read() for member in tar}
    name = "n01443537.tar"
    with tarfile.open(fileobj=io.BytesIO(tars[name])) as inner:
        last = inner.getmembers()[-1]
    behind = last.offset_data + -(-last.size // 512) * 512
    ends = {"in an image": last.offset_data + 100, "behind an image": last.offset}
    tars[name] = tars[name][: ends.get(cut, behind)]
    archives.write_tar(tmp_path / "ILSVRC2012_img_train.tar", tars)
    with pytest.raises(OSError, match=r"n01443537.tar is (cut off|no whole)"):
        prepare(tmp_path, tmp_path / "data")


def test_a_file_that_is_not_a_tar(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").write_text("<html>please log in</html>" * 100)
    with pytest.raises(OSError, match="is not a complete, uncompressed tar"):
        prepare(tmp_path, tmp_path / "data")


def test_missing_synset(tmp_path):
    synsets = archives.imagenet_synsets()
    archives.make_imagenet(tmp_path, synsets=synsets[:-2], validation=0)
    with pytest.raises(ValueError, match=rf"lacks images of 2 synsets: {synsets[-2]}"):
        prepare(tmp_path, tmp_path / "data")


def test_unknown_synset(tmp_path):
    synsets = [*archives.imagenet_synsets(), "n99999999"]
    archives.make_imagenet(tmp_path, synsets=synsets, validation=0)
    with pytest.raises(ValueError, match=r"1 files of no synset: n99999999\.tar"):
        prepare(tmp_path, tmp_path / "data")


def test_missing_validation_image(tmp_path):
    changes = {"ILSVRC2012_val_00000003.JPEG": None, "ILSVRC2012_val_1.JPEG": b"?"}
    archives.make_imagenet(tmp_path, train_per_class=0, validation=100, changes=changes)
    expected = r"lacks 49901 images: \S+_00000003.JPEG, \S+_00000101.JPEG.* others: \S+_val_1.JPEG"
    with pytest.raises(ValueError, match=expected):
        prepare(tmp_path, tmp_path / "data")


def test_what_macos_adds_to_a_tar_is_left_out(tmp_path):
    """Packed again with "./" in front, as `tar c .` does."""
    synsets = archives.imagenet_synsets()
    archives.make_imagenet(tmp_path, validation=0)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    with tarfile.open(path) as tar:
        tars = {f"./{member.name}": tar.extractfile(member).read() for member in tar}
    tars[f"./._{synsets[0]}.tar"] = tars["./.DS_Store"] = b"\0\5\26\7"
    archives.write_tar(path, tars)
    assert prepare(tmp_path, tmp_path / "data").splits == {"train": 1000}


def test_list_of_the_training_tar_is_kept(tmp_path, monkeypatch):
    """Listing 1.3 million images takes long; a run that fails later need not do it again."""
    bad = {"n01440764_1.JPEG": b"\xff\xd8\xff"}
    archives.make_imagenet(tmp_path, validation=0, changes=bad)
    kept = tmp_path / "data" / "incomplete.imagenet2012" / "train.npz"
    for content in (None, b"PK\x03\x04 broken", b""):
        if content is not None:  # a broken one is replaced
            kept.write_bytes(content)
        with pytest.raises(ValueError, match=r"n01440764.tar/n01440764_1.JPEG: "):
            prepare(tmp_path, tmp_path / "data")
    monkeypatch.setattr(tarfile, "open", None)
    with pytest.raises(ValueError, match=r"n01440764.tar/n01440764_1.JPEG: "):
        prepare(tmp_path, tmp_path / "data")
    monkeypatch.undo()
    archives.make_imagenet(tmp_path, validation=0, train_per_class=2)  # another tar, another list
    assert prepare(tmp_path, tmp_path / "data").splits == {"train": 2000}


def test_damaged_images_are_kept_as_tfds_keeps_them_and_named(tmp_path, capsys):
    """And missing images are reported before the others are written."""
    whole = archives.image(0, 1, size=(200, 300))
    half = whole[: len(whole) // 2] + b"\xff\xd9"
    archives.make_imagenet(tmp_path, validation=0, changes={"n01440764_1.JPEG": half})
    prepared = prepare(tmp_path, tmp_path / "data")
    assert any(
        note.startswith("1 images are damaged, but can be read: n01440764.tar/n01440764_1.JPEG (")
        for note in prepared.notes
    )
    missing = "ILSVRC2012_img_train.tar has 1000 images, the official one has 1281167"
    assert missing in prepared.notes
    assert f"note: {missing}\n" in capsys.readouterr().err
    again = prepare(tmp_path, tmp_path / "data")
    assert not again.is_new
    assert again.notes[0].startswith("it has no split 'validation': to add it, delete")
