"""Data sets from archives and folders in their official layouts: classes, labels, bad input."""

import functools
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from pnoise_jax import data
from pnoise_jax.data import prepare as preparation
from pnoise_jax.data.dataset import Dataset
from tests.data import archives
from tests.data.archives import image

LAYOUTS = {
    "tiny_imagenet": archives.make_tiny_imagenet,
    "office_home": archives.make_office_home,
    "visda2017": archives.make_visda,
    "domainnet": archives.make_domainnet,
}
TINY, OFFICE = "tiny-imagenet-200", "OfficeHomeDataset_10072016"


def prepare(name, directory, **options):
    data_dir = directory.parent / "data"
    return preparation.prepare(name, manual_dir=directory, data_dir=data_dir, **options)


def make(name, directory, **options):
    LAYOUTS.get(name, archives.make_folder)(directory, **options)


def load(name, directory, split) -> Dataset:
    return data.load(name, split=split, data_dir=directory.parent / "data")


@pytest.fixture
def manual(tmp_path):
    """The directory of the downloads; `prepare` and `load` use one beside it."""
    directory = tmp_path / "manual"
    directory.mkdir()
    return directory


def stored(dataset) -> dict[bytes, int]:
    """The label of every image."""
    return {bytes(image): int(i) for image, i in zip(dataset.images, dataset.labels, strict=True)}


def class_names(prepared) -> list[str]:
    return (prepared.path / "label.labels.txt").read_text().split()


# The right labels


@pytest.mark.parametrize("extracted", [False, True])
def test_tiny_imagenet(manual, extracted):
    archives.make_tiny_imagenet(manual, extracted=extracted)
    prepared = prepare("tiny_imagenet", manual)
    wnids = archives.imagenet_synsets()[:5]
    assert prepared.splits == {"train": 20, "validation": 10}
    assert class_names(prepared) == sorted(wnids)
    whole = functools.partial(image, size=(64, 64))
    train, validation = (load("tiny_imagenet", manual, s) for s in prepared.splits)
    assert stored(train) == {whole(c, i): c for c in range(5) for i in range(4)}
    assert stored(validation) == {whole(i % 5, 1000 + i): i % 5 for i in range(10)}
    assert any("the official archive has 200" in note for note in prepared.notes)


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize("real_world", ["Real World", "Real_World", "RealWorld"])
def test_office_home(manual, extracted, real_world):
    domains = ("Art", "Clipart", "Product", real_world)
    archives.make_office_home(manual, domains=domains, extracted=extracted)
    prepared = prepare("office_home", manual)
    assert list(prepared.splits) == ["art", "clipart", "product", "real_world"]
    published = ["Bed", "Backpack", "Alarm_Clock", "Batteries", "TV"]
    assert class_names(prepared) == published
    label_of = [published.index(name) for name in archives.OFFICE_HOME_CLASSES]
    expected = {image(c, i, size=(30 + 10 * i, 48)): label_of[c] for c in range(5) for i in (1, 2)}
    for split in prepared.splits:
        assert stored(load("office_home", manual, split)) == expected


@pytest.mark.parametrize("extracted", [False, True])
def test_visda(manual, extracted):
    archives.make_visda(manual, extracted=extracted)
    prepared = prepare("visda2017", manual)
    assert class_names(prepared) == list(archives.VISDA_CLASSES)
    for split, format in (("train", "PNG"), ("validation", "JPEG")):
        expected = {image(c, i, format=format): c for c in range(12) for i in range(2)}
        assert stored(load("visda2017", manual, split)) == expected


def test_visda_with_one_of_its_tars(manual):
    archives.make_visda(manual, splits=["validation"])
    prepared = prepare("visda2017", manual)
    assert prepared.splits == {"validation": 24}
    assert prepared.notes == ["no train.tar, so no split 'train'"]


def test_folder_with_splits(manual):
    changes = {"train/cat/more/x.JPG": image(0, 77), "train/cat/.DS_Store": b"", "README.md": b""}
    changes["train/dog/Thumbs.db"] = b""
    archives.make_folder(manual, changes=changes)
    prepared = prepare("folder/pets", manual)
    assert prepared.splits == {"test": 12, "train": 13}
    assert class_names(prepared) == ["cat", "dog", "owl"]
    train = {image(c, i): c for c in range(3) for i in range(4)} | {image(0, 77): 0}
    assert stored(load("folder/pets", manual, "train")) == train
    test = {image(c, 100 + i): c for c in range(3) for i in range(4)}
    assert stored(load("folder/pets", manual, "test")) == test


def test_folder_without_splits(manual):
    archives.make_folder(manual, splits=())
    prepared = prepare("folder/pets", manual)
    assert prepared.splits == {"train": 12}
    assert load("folder/pets", manual, "train").num_classes == 3


def test_litter_is_left_out(manual):
    litter = ("._0.jpg", ".DS_Store", ".ipynb_checkpoints/0.jpg", ".git/x.jpg")
    changes = {f"train/cat/{name}": image(0, 0) for name in litter}
    archives.make_folder(manual, changes=changes | {"train/cat/.idea/x.xml": b"<a/>"})
    assert prepare("folder/pets", manual).splits == {"test": 12, "train": 12}


def test_tiny_imagenet_as_others_pack_it(manual):
    """Without its root folder, with "./", with blank lines."""
    archives.make_tiny_imagenet(manual, extracted=True)
    files = {
        f"./{path.relative_to(manual / TINY)}": path.read_bytes()
        for path in (manual / TINY).rglob("*")
        if path.is_file()
    }
    files["./val/val_annotations.txt"] += b"\r\n\n"
    (manual / "packed").mkdir()
    archives.write_zip(manual / "packed" / f"{TINY}.zip", files)
    assert prepare("tiny_imagenet", manual / "packed").splits == {"train": 20, "validation": 10}


def test_images_differ_in_size_and_kind(manual):
    """1×1, wide, gray, CMYK, PNG and GIF images can be prepared and loaded."""
    photo = archives.Image.open(archives.io.BytesIO(image(0, 0)))
    encode = archives.encode
    changes = {
        "train/cat/tiny.png": encode(photo.resize((1, 1)), format="PNG"),
        "train/cat/wide.jpg": encode(photo.resize((400, 3))),
        "train/cat/gray.jpg": encode(photo.convert("L")),
        "train/cat/cmyk.jpg": encode(photo.convert("CMYK")),
        "train/cat/frames.gif": encode(photo.convert("P"), format="GIF"),
    }
    archives.make_folder(manual, changes=changes)
    prepared = prepare("folder/pets", manual)
    assert prepared.changes == {"CMYK to RGB": 1, "GIF to PNG": 1}
    train = load("folder/pets", manual, "train")
    shapes = {train[i]["image"].shape for i in range(len(train))}
    assert shapes == {(40, 30, 3), (1, 1, 3), (3, 400, 3)}


def test_short_side(manual):
    archives.make_office_home(manual)
    prepared = prepare("office_home", manual, short_side=44)
    assert prepared.changes == {"shrunk": 20}  # of 40 × 48 and 50 × 48 pixels
    shapes = {load("office_home", manual, "art")[i]["image"].shape for i in range(10)}
    assert shapes == {(40, 48, 3), (46, 44, 3)}
    assert json.loads((prepared.path / "preparation.json").read_text())["short_side"] == 44


# Bad input: what, how it is made, what the message says


WNIDS = archives.imagenet_synsets()
BAD = {
    "tiny: annotated image is not there": (
        "tiny_imagenet",
        {"changes": {f"{TINY}/val/images/val_3.JPEG": None}},
        r"val_annotations.txt, line 4: there is no image 'val_3.JPEG'",
    ),
    "tiny: unknown class": (
        "tiny_imagenet",
        {"changes": {f"{TINY}/val/val_annotations.txt": b"val_0.JPEG\tn00000000\t0\t0\t1\t1\n"}},
        r"line 1: class 'n00000000' is not in wnids.txt",
    ),
    "tiny: image without label": (
        "tiny_imagenet",
        {"changes": {f"{TINY}/val/images/val_10.JPEG": image(0, 0)}},
        r"no label for 1 images: val_10.JPEG",
    ),
    "tiny: no annotations": (
        "tiny_imagenet",
        {"changes": {f"{TINY}/val/val_annotations.txt": None}},
        r"lacks tiny-imagenet-200/val/val_annotations.txt",
    ),
    "tiny: binary annotations": (
        "tiny_imagenet",
        {"changes": {f"{TINY}/val/val_annotations.txt": b"\xff\x00\t\xfe\n"}},
        r"val_annotations.txt, line 1: there is no image",
    ),
    "tiny: class missing in train": (
        "tiny_imagenet",
        {"changes": {f"{TINY}/wnids.txt": "\n".join(WNIDS[:6]).encode()}},
        rf"train has no {WNIDS[5]}",
    ),
    "tiny: rearranged": (
        "tiny_imagenet",
        {"changes": {f"{TINY}/val/{WNIDS[0]}/images/val_0.JPEG": image(0, 0)}},
        rf"val has a folder for each class, {WNIDS[0]}: some script has rearranged it",
    ),
    "office: classes differ": (
        "office_home",
        {"changes": {f"{OFFICE}/Art/Bed/{i:05d}.jpg": None for i in (1, 2)}},
        r"art has no Bed",
    ),
    "office: domain missing": (
        "office_home",
        {"domains": ("Art", "Clipart", "Product")},
        r"lacks the domains real_world",
    ),
    "office: image without label": (
        "office_home",
        {"changes": {f"{OFFICE}/Art/stray.jpg": image(0, 0)}},
        r"1 images without a label.*Art/stray.jpg",
    ),
    "visda: list with another label": (
        "visda2017",
        {"changes": {"train/image_list.txt": b"aeroplane/train_0_0.png 3\n"}},
        r"contradict the class folder \(line 1: 'aeroplane/train_0_0.png' has label 3, but "
        r"'aeroplane' is class 0\)",
    ),
    "visda: list of other images": (
        "visda2017",
        {"changes": {"train/image_list.txt": b"aeroplane/other.png 0\n"}},
        r"1 images that are missing \(line 1: 'aeroplane/other.png'\)",
    ),
    "visda: image that is not in the list": (
        "visda2017",
        {"changes": {"validation/bus/extra.jpg": image(0, 0)}},
        r"no label for 1 images: validation/bus/extra.jpg",
    ),
    "folder: empty class": (
        "folder/pets",
        {"changes": {"train/eel/": b""}},
        r"1 class folders without images: eel",
    ),
    "folder: only hidden files in a class": (
        "folder/pets",
        {"changes": {"train/eel/.DS_Store": b""}},
        r"1 class folders without images: eel",
    ),
    "folder: a hidden class": (
        "folder/pets",
        {"splits": (), "classes": (".net", "c", "java")},
        r"4 images in hidden files or folders: \.net/0\.jpg",
    ),
    "folder: hidden images in a class": (
        "folder/pets",
        {"changes": dict.fromkeys(("train/cat/.old/1.jpg", "train/.x/1", "train/.y"), image(0, 0))},
        r"3 images in hidden files or folders: train/cat/\.old/1\.jpg, train/\.y, train/\.x/1;",
    ),
    "folder: same name but case": (
        "folder/pets",
        {"classes": ("cat", "Cat", "dog")},
        r"class folders 'Cat' and 'cat', which differ only in case",
    ),
    "folder: splits differ": (
        "folder/pets",
        {"changes": {"test/eel/1.jpg": image(0, 0)}},
        r"train has no eel",
    ),
    "folder: image beside classes": (
        "folder/pets",
        {"changes": {"train/1.jpg": image(0, 0)}},
        r"1 images without a label.*train/1.jpg",
    ),
    "folder: image beside splits": (
        "folder/pets",
        {"changes": {"1.jpg": image(0, 0)}},
        r"images without a label.*1.jpg",
    ),
    "folder: image beside classes, no splits": (
        "folder/pets",
        {"splits": (), "changes": {"1.jpg": image(0, 0)}},
        r"1 images without a label.*1.jpg",
    ),
    "folder: nothing": ("folder/pets", {"classes": ()}, r"has no class folders"),
    "folder: images only": (
        "folder/pets",
        {"classes": (), "changes": {"1.jpg": image(0, 0)}},
        r"has no class folders",
    ),
    "folder: splits of other names": (
        "folder/pets",
        {"splits": ("train", "all")},
        r"are its folders classes or splits\?",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(manual, case):
    name, options, message = BAD[case]
    make(name, manual, **options)
    with pytest.raises((ValueError, OSError), match=message):
        prepare(name, manual)
    assert not list(manual.with_name("data").iterdir())  # nothing was begun


@pytest.mark.parametrize("name", LAYOUTS)
def test_truncated_archives(manual, name):
    make(name, manual)
    for path in (*manual.glob("*.zip"), *manual.glob("*.tar")):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(OSError, match=r"(cut off|no whole)"):
        prepare(name, manual)


def test_damaged_bytes_in_a_zip_are_named(manual):
    archives.make_tiny_imagenet(manual)
    path = manual / f"{TINY}.zip"
    content = bytearray(path.read_bytes())
    at = content.index(image(0, 0, size=(64, 64)))
    content[at + 300 : at + 310] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"n01440764_0.JPEG.*(CRC|read)"):
        prepare("tiny_imagenet", manual)


@pytest.mark.parametrize(
    ("target", "reason"), [("gone.jpg", "No such file"), ("link.jpg", "Too many levels")]
)
def test_a_link_to_nothing_is_named_with_the_fix(manual, target, reason):
    archives.make_folder(manual)
    os.symlink(target, manual / "train" / "cat" / "link.jpg")
    message = rf"cat/link\.jpg is a link to '{target}', .*\({reason}.*\): remove the link"
    with pytest.raises(OSError, match=message):
        prepare("folder/pets", manual)


def test_a_link_in_a_circle_is_named(manual):
    archives.make_folder(manual)
    os.symlink(manual, manual / "train" / "cat" / "loop")
    with pytest.raises(OSError, match=r"train/cat/loop is a link to a folder that contains it"):
        prepare("folder/pets", manual)


def test_a_pipe_is_named_and_not_waited_for(manual):
    archives.make_folder(manual)
    os.mkfifo(manual / "train" / "cat" / "pipe.jpg")
    with pytest.raises(OSError, match=r"cat/pipe\.jpg is neither a file nor a folder"):
        prepare("folder/pets", manual)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE])
def test_links_in_a_tar_are_named(manual, kind):
    """Their bytes are stored elsewhere."""
    archives.make_visda(manual, splits=["train"])
    (manual / "train.tar").rename(manual / "whole.tar")
    link = tarfile.TarInfo("train/bus/link.png")
    link.type, link.linkname = kind, "train/bus/train_2_0.png"
    with (
        tarfile.open(manual / "whole.tar") as whole,
        tarfile.open(manual / "train.tar", "w") as tar,
    ):
        for member in whole:
            tar.addfile(member, whole.extractfile(member))
        tar.addfile(link)
    with pytest.raises(OSError, match=r"train/bus/link\.png is (a link|not a regular file)"):
        prepare("visda2017", manual)


def test_all_bad_images_are_named_at_once(manual):
    bad = {f"train/cat/bad{i:02d}.jpg": image(0, i)[:-100] for i in range(12)}
    archives.make_folder(manual, changes=bad | {"test/dog/bad.png": b"text"})
    with pytest.raises(ValueError, match="13 images cannot be used") as error:
        prepare("folder/pets", manual)
    assert str(error.value).count("\n  train/cat/bad") + str(error.value).count("\n  test/") == 10
    assert "and 3 more" in str(error.value)
    assert not (manual.parent / "data" / "folder").exists()


UNFIT = ["folder/", "folder", "folder/../x", "folder/../folder/pets", "folder/a/b", "folder/1.0.0"]


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_names(manual, name):
    """They are refused before anything is read."""
    archives.make_folder(manual)
    prepare("folder/pets", manual)
    with pytest.raises(ValueError, match="use folder/<name>"):
        prepare(name, manual)


def test_records_carry_their_names(manual):
    archives.make_folder(manual)
    prepared = prepare("folder/pets", manual)
    source = archives.tfds.builder_from_directory(prepared.path).as_data_source(
        "test", decoders={"image": archives.tfds.decode.SkipDecoding()}
    )
    names = {example["file_name"].decode(): int(example["label"]) for example in source}
    assert names == {
        f"{c}/{i}.jpg": j for j, c in enumerate(("cat", "dog", "owl")) for i in range(4)
    }
    order = [int(example["label"]) for example in source]
    np.testing.assert_array_equal(load("folder/pets", manual, "test").labels, order)


def test_file_names_that_are_not_text(manual):
    archives.make_folder(manual)
    (manual / "train" / "cat").joinpath(os.fsdecode(b"caf\xe9.jpg")).write_bytes(image(0, 0))
    with pytest.raises(ValueError, match=r"1 file names that are not UTF-8: 'train/cat/caf\\udce9"):
        prepare("folder/pets", manual)


def test_data_directory_among_the_images(manual):
    archives.make_folder(manual)
    with pytest.raises(ValueError, match="is in --manual_dir"):
        preparation.prepare("folder/pets", manual_dir=manual, data_dir=manual / "data")


def test_unknown_name(manual):
    with pytest.raises(ValueError, match=r"'tiny_imagnet' is unknown; did you mean 'tiny_ima"):
        prepare("tiny_imagnet", manual)


def test_embedded_data_sets_need_no_files(manual):
    for is_new in (True, False):
        prepared = preparation.prepare("digits", data_dir=manual.parent / "data")
        assert prepared.is_new == is_new
        assert prepared.splits == {"train": 797, "test": 1000}
    assert len(load("digits", manual, "test")) == 1000
    with pytest.raises(ValueError, match="ships with the project"):
        prepare("digits", manual)


def test_dark_images_of_sixteen_bits_are_noted(manual):
    """12 bits in 16: how many images there are, and how many grey levels are left."""
    archives.make_folder(manual)
    (folder, *_) = sorted({path.parent for path in manual.rglob("*.*")})
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for i in range(3):
        Image.fromarray(ramp).save(folder / f"dark{i}.png")
    Image.fromarray(ramp * 16).save(folder / "bright.png")
    (note,) = [note for note in prepare("folder/wide", manual).notes if "16 bits" in note]
    assert note == (
        "3 images with 16 bits per sample need only 12 of them. The upper 8 bits are kept, so "
        "these images have at most 16 grey levels. If their samples are 12-bit numbers, multiply "
        "them by 16 and prepare the data set again"
    )
