"""Class folders as users have them: which order, which layout, which files, which names."""

import json
import os
import shutil
import unicodedata

import pytest

from pnoise_jax import data
from pnoise_jax.data import manifest, shared_examples
from pnoise_jax.data import prepare as preparation
from pnoise_jax.data.prepare.sources.class_folders import natural_order
from pnoise_jax.data.stored.directory import PreparedDirectory
from tests.data import archives
from tests.data.archives import image


@pytest.fixture
def manual(tmp_path):
    directory = tmp_path / "manual"
    directory.mkdir()
    return directory


def prepare(manual, *paths, **options):
    """Prepares a tree of these images; a path may come with other bytes, as (path, bytes)."""
    files = dict(p if isinstance(p, tuple) else (p, image(0, i)) for i, p in enumerate(paths))
    archives.write_folder(manual, files)
    data_dir = manual.parent / "data"
    return preparation.prepare("folder/x", manual_dir=manual, data_dir=data_dir, **options)


def read(prepared) -> dict[str, list[str]]:
    """The classes of the examples of each split, as they are stored."""
    directory = PreparedDirectory(prepared.path, prepared.name)
    names = directory.class_names
    assert list(names) == list(prepared.class_names)
    return {s: sorted(names[i] for i in directory.labels(s)) for s in prepared.splits}


def trees(*classes, splits=("train", "val")):
    return [f"{split}/{name}/0.jpg" for split in splits for name in classes]


# The order of classes


def test_numbers_are_in_natural_order_with_a_note(manual):
    numbers = [str(i) for i in range(12)]
    prepared = prepare(manual, *trees(*numbers))
    assert list(prepared.class_names) == numbers
    for split in ("train", "val"):
        dataset = data.load("folder/x", split=split, data_dir=manual.parent / "data")
        label_of_bytes = {
            bytes(x): int(y) for x, y in zip(dataset.images, dataset.labels, strict=True)
        }
        offset = 0 if split == "train" else 12
        assert label_of_bytes == {image(0, offset + i): i for i in range(12)}
    assert prepared.notes == [
        "classes are numbered in natural order: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11; label 2 is "
        "'2', but '10' in torchvision's ImageFolder"
    ]
    written = json.loads((prepared.path / "preparation.json").read_text())
    assert written["class_order"] == "natural"
    assert written["layout"] == "splits"
    assert written["notes"] == prepared.notes


@pytest.mark.parametrize(
    "names",
    [
        ["0", "1", "2", "10", "11"],
        ["-10", "-2", "0", "1.5", "3", "20"],
        ["000", "001", "010", "011"],
        ["class_1", "class_2", "class_10"],
        ["img2b", "img10a", "img10b"],
        ["n01440764", "n01443537", "n02085620"],  # as ImageNet's
        ["#1", "-dash", "100%", "Zebra", "apple"],  # without numbers, as torchvision
        ["01", "1", "2"],
    ],
)
def test_natural_order(names):
    assert natural_order(names[::-1]) == names


def test_order_of_words_is_torchvisions_and_needs_no_note(manual):
    prepared = prepare(manual, *trees("apple", "Zebra", "n01440764", "n02085620"))
    assert list(prepared.class_names) == ["Zebra", "apple", "n01440764", "n02085620"]
    assert not prepared.notes


def test_a_prepared_directory_keeps_its_order(manual):
    """Here, an older version has sorted it by code points."""
    prepared = prepare(manual, *trees(*map(str, range(12))))
    older = sorted(map(str, range(12)))
    (prepared.path / "label.labels.txt").write_text("".join(f"{name}\n" for name in older))
    manifest.write(prepared.path)
    again = prepare(manual)
    assert not again.is_new
    assert list(again.class_names) == older
    dataset = data.load("folder/x", split="train", data_dir=manual.parent / "data")
    assert dataset.class_names == tuple(older)


# Classes or splits


UNCLEAR = {
    "nested classes": ("cat/2019/1.jpg", "cat/2020/1.jpg", "dog/2019/1.jpg"),
    "a wrapper": ("mydata/cat/1.jpg", "mydata/dog/1.jpg"),
    "a class called test": ("cat/1.jpg", "test/1.jpg", "dog/1.jpg"),
    "a class called Train, nested": ("bus/a/1.jpg", "Train/a/1.jpg"),
    "only images": ("train/1.jpg", "test/1.jpg"),
    "an unlabelled test folder": ("cat/1.jpg", "dog/1.jpg", "test2017/1.jpg"),
    "domains": ("photo/cat/1.jpg", "sketch/cat/1.jpg"),
    "a split of another name": (*trees("cat", "dog"), "pool/cat/1.jpg", "pool/dog/1.jpg"),
    "one level too high": ("images/train/cat/1.jpg", "images/val/cat/1.jpg"),
    "splits in a split": ("train/train/1.jpg", "test/test/1.jpg"),
    "a split in a split": ("train/train/1.jpg",),
    "a folder around the classes": ("train/images/cat/1.jpg", "val/images/dog/1.jpg"),
    "a folder of images without classes": ("train/images/1.jpg", "val/images/1.jpg"),
    "a cover beside the classes": ("photos/cat/1.jpg", "photos/dog/1.jpg", "photos/cover.jpg"),
    "images of no class": ("images/1.jpg", "images/2.jpg"),
    "pairs of domains": ("trainA/1.jpg", "trainB/1.jpg", "testA/1.jpg", "testB/1.jpg"),
    "parts of a split": ("train_clean/1.jpg", "train_noisy/1.jpg"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_if_both_layouts_are_possible_both_are_shown(manual, case):
    with pytest.raises(ValueError, match="are its folders classes or splits") as error:
        prepare(manual, *UNCLEAR[case])
    _, classes, splits, fix = str(error.value).splitlines()
    assert classes.startswith("  --layout=classes: split train, with classes ")
    for path in UNCLEAR[case]:
        assert f"{path.partition('/')[0]} (" in classes
    assert splits.startswith("  --layout=splits: ")
    assert fix.startswith("Run the same command again, and choose one")
    assert not list((manual.parent / "data").iterdir())


@pytest.mark.parametrize("classes", [("cat",), ("train station", "airport"), ("valley",)])
def test_a_clear_layout_needs_no_choice(manual, classes):
    assert read(prepare(manual, *(f"{x}/1.jpg" for x in classes)))["train"] == sorted(classes)


def test_how_to_make_an_unclear_tree_clear(manual):
    with pytest.raises(ValueError, match=r"each folder images one level up\.$"):
        prepare(manual, "train/images/cat/1.jpg", "val/images/cat/1.jpg")
    with pytest.raises(ValueError, match=r"away the folders without images, annotations\.$"):
        prepare(manual / "b", *trees("cat", "dog"), ("annotations/1.xml", b"<a/>"))


def test_splits_whose_names_look_the_same(manual):
    with pytest.raises(
        ValueError, match="split folders 'TRAIN' and 'train', which differ only in case"
    ):
        prepare(manual, *trees("cat", "dog", splits=("TRAIN", "train")))


def test_the_layout_that_is_shown_is_what_is_prepared(manual):
    paths = UNCLEAR["nested classes"]
    with pytest.raises(ValueError, match="classes or splits") as error:
        prepare(manual, *paths)
    assert str(error.value).splitlines()[1:3] == [
        "  --layout=classes: split train, with classes cat (2 images), dog (1 image)",
        "  --layout=splits: splits cat, dog, with classes 2019, 2020",
    ]
    prepared = prepare(manual, *paths, layout="classes")
    assert read(prepared) == {"train": ["cat", "cat", "dog"]}
    assert prepared.notes == [
        "images in folders below a class folder belong to that class: cat/2019, cat/2020, dog/2019"
    ]
    with pytest.raises(ValueError, match=r"was prepared with --layout=classes, but is requested"):
        prepare(manual, layout="splits")
    assert not prepare(manual).is_new
    assert not prepare(manual, layout="classes").is_new


def test_a_layout_can_be_chosen(manual):
    prepared = prepare(manual, *UNCLEAR["domains"], layout="splits")
    assert read(prepared) == {"photo": ["cat"], "sketch": ["cat"]}


def test_a_class_called_test_can_be_chosen(manual):
    prepared = prepare(manual, *UNCLEAR["a class called test"], layout="classes")
    assert read(prepared) == {"train": ["cat", "dog", "test"]}


def test_a_class_called_train_in_splits_is_clear(manual):
    prepared = prepare(manual, *trees("bus", "train"))
    assert read(prepared) == {"train": ["bus", "train"], "val": ["bus", "train"]}


@pytest.mark.parametrize("splits", [("Train", "TEST"), ("train2017", "val2017"), ("test_set",)])
def test_splits_by_their_names(manual, splits):
    assert set(prepare(manual, *trees("a", "b", splits=splits)).splits) == set(splits)


def test_a_class_of_folders_beside_others_of_images_is_clear(manual):
    prepared = prepare(manual, "cat/1.jpg", "dog/old/1.jpg", "test_tube/1.jpg")
    assert read(prepared) == {"train": ["cat", "dog", "test_tube"]}
    assert any("dog/old" in note for note in prepared.notes)


def test_test_images_without_labels(manual):
    with pytest.raises(ValueError, match=r"has no class folders, test/<class>.*2 images without a"):
        prepare(manual, "train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg", "test/2.jpg")


@pytest.mark.parametrize("split", ["te-st", "all"])
def test_splits_that_tfds_cannot_name(manual, split):
    with pytest.raises(ValueError, match=f"'{split}' would be a split of that name.*rename"):
        prepare(manual, *trees("a", "b", splits=("train", split)), layout="splits")


def test_layout_is_only_for_your_own_folders(tmp_path):
    for options in ({"layout": "classes"}, {"skip_unreadable": True}):
        with pytest.raises(ValueError, match="has a fixed layout"):
            preparation.prepare("visda2017", manual_dir=tmp_path, data_dir=tmp_path, **options)


# What systems leave


LITTER = [
    *("lost+found/", "$RECYCLE.BIN/S-1/x.jpg", "System Volume Information/x.jpg", "#recycle/x.jpg"),
    *(
        ".Trash-1000/files/x.jpg",
        "__MACOSX/cat/._x.jpg",
        ".ipynb_checkpoints/x.jpg",
        "@eaDir/x.jpg",
    ),
    *(".Trashes/1.jpg", ".snapshot/1.jpg", "LOST.DIR/1.jpg", "RECYCLER/1.jpg"),
]


@pytest.mark.parametrize("inside", ["", "cat/", "train/", "train/cat/"])
def test_folders_of_the_system_are_not_classes(manual, inside):
    paths = trees("cat", "dog") if inside.startswith("train") else ["cat/1.jpg", "dog/1.jpg"]
    litter = {f"{inside}{name}": b"x" * (not name.endswith("/")) for name in LITTER}
    archives.write_folder(manual, litter)
    (manual / inside / "Thumbs.db").write_bytes(b"\0x")
    (manual / inside / "~$x.tmp").write_bytes(b"\0x")
    prepared = prepare(manual, *paths)
    assert list(prepared.class_names) == ["cat", "dog"]
    assert sum(prepared.splits.values()) == len(paths)
    (note,) = prepared.notes
    assert note.startswith("left out system folders: ")


def test_a_folder_of_the_system_that_cannot_be_read(manual, monkeypatch):
    (manual / "lost+found").mkdir()
    listdir = os.listdir

    def refusing(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    assert prepare(manual, "cat/1.jpg", "dog/1.jpg").splits == {"train": 2}


# Names


def form(kind, name):
    return unicodedata.normalize(kind, name)


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (form("NFC", "café"), form("NFD", "café"), "Unicode form"),
        ("cat", "CAT", "case"),
        (form("NFC", "É"), form("NFD", "é"), "case"),
        ("golden retriever", "golden  retriever", "blanks or invisible characters"),
        ("golden retriever", "golden\u00a0retriever", "blanks or invisible characters"),
        ("cat\u200ddog", "catdog", "blanks or invisible characters"),
        ("cat\ufe0f", "cat", "blanks or invisible characters"),
    ],
)
def test_classes_that_look_the_same(manual, one, other, differ):
    with pytest.raises(ValueError, match=f"differ only in {differ}: one class or two") as error:
        prepare(manual, *trees(one, other, "zebra"))
    assert ascii(one) in str(error.value)
    assert ascii(other) in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        *(
            " cat",
            "cat ",
            "cat\n",
            "a\nb",
            "a\tb",
            "a\x1b[31mb",
            "a\u202eb",
            "a\u200bb",
            "a\u2028b",
        ),
        *("cat\u3164", "\u2800", "c\u034fat", "\uffa0cat"),
    ],
)
def test_names_that_cannot_be_kept(manual, name):
    with pytest.raises(ValueError, match="1 class folders whose names begin or end") as error:
        prepare(manual, *trees(name, "zebra"))
    assert ascii(name) in str(error.value)
    assert str(error.value).isprintable()


def test_names_that_are_kept(manual):
    names = ["[red]", "a,b", "it's", "golden retriever", "🐈\u200d⬛", "❤\ufe0f", "قطة", "…", "<b>"]
    prepared = prepare(manual, *trees(*names))
    assert set(prepared.class_names) == set(names)


def test_unicode_forms_of_splits_are_one_class(manual):
    """As when one split was packed on a Mac."""
    paths = [f"train/{form('NFC', 'café')}/1.jpg", f"val/{form('NFD', 'café')}/1.jpg"]
    prepared = prepare(manual, *paths, "train/thé/1.jpg", "val/thé/1.jpg")
    assert list(prepared.class_names) == [form("NFC", "café"), form("NFC", "thé")]
    assert read(prepared)["val"] == list(prepared.class_names)


def test_splits_whose_classes_differ_in_case(manual):
    with pytest.raises(ValueError, match=r"'Cat' and 'cat' differ only in case"):
        prepare(manual, "train/Cat/1.jpg", "val/cat/1.jpg")


def test_file_names_never_reach_a_terminal_raw(manual, capsys):
    bad = "train/cat/\x1b]0;x\x07\x1b[31m.jpg"
    for change in ((bad, b"\xff\xd8\xff"), (bad.replace(".jpg", ".psd"), b"8BPS")):
        with pytest.raises(ValueError, match=r"\\x1b\]0;x\\x07\\x1b\[31m") as error:
            prepare(manual, *trees("cat", "dog"), change)
        assert all(line.isprintable() for line in str(error.value).splitlines())
    (manual / bad).unlink()
    (manual / bad.replace(".jpg", ".psd")).unlink()
    prepared = prepare(manual, (bad.replace(".jpg", ".txt"), b"text"))
    assert "\\x1b]0;x" in prepared.notes[0]
    assert "\x1b]0;x" not in capsys.readouterr().err


# Files


def test_images_of_other_names(manual):
    """With rare suffixes, without any, and with a wrong one."""
    picture = archives.Image.open(archives.io.BytesIO(image(1, 1)))
    encoded = {
        kind: archives.encode(picture, format=kind) for kind in ("PNG", "GIF", "BMP", "WEBP")
    }
    jpeg, png = image(0, 0), encoded["PNG"]
    by_name = [(f"a/{i}{s}", jpeg) for i, s in enumerate((".jfif", ".JPE", ".jpg", ".pjpeg"))]
    by_content = [
        *(("a/photo", jpeg), ("b/IMG_1.jpg_large", image(0, 1)), ("b/x.txt", png)),
        ("a/big", archives.encode(picture, format="TIFF", big_tiff=True)),
        *((f"b/{kind}", data) for kind, data in encoded.items()),
    ]
    prepared = prepare(manual, *by_name, *by_content)
    assert prepared.splits == {"train": 12}
    # The picture is several times in each class, in formats that become one.
    note, in_class, copies = prepared.notes
    assert in_class.startswith("images that are copies of others in their class: ")
    assert copies.startswith("images that are in several classes (a and b, for instance): 1.")
    assert note.startswith("8 files are images by their content, not by their names: ")
    for path, _ in by_content[:3]:
        assert path in note


def test_texts_among_images_are_left_out_and_counted(manual):
    texts = [
        *((f"train/cat/{i}.xml", b"<annotation/>") for i in range(4)),
        *(("train/dog/notes.txt", "caf\xe9".encode("latin-1")), ("train/labels.csv", b"1,2\n")),
        *(("README.md", b""), ("train/dog/LICENSE", b"MIT"), ("train/dog/bm.txt", b"BMW is a car")),
        *(("train/dog/old.txt", "ж".encode("utf-16")), ("train/dog/empty", b"")),
        *((f"train/dog/{x}.txt", "Это текст".encode(x)) for x in ("cp1251", "utf-16-le")),
        ("train/dog/gb18030.TXT", "这是中文文本说明文件".encode("gb18030")),
    ]
    long = ("train/dog/long.txt", b"x" + "ж".encode() * 400)  # cut in the middle of a letter
    prepared = prepare(manual, *trees("cat", "dog"), *texts, long)
    assert prepared.splits == {"train": 2, "val": 2}
    (note,) = prepared.notes
    assert note.startswith("left out 15 files that are not images: ")
    assert "4 .xml (train/cat/0.xml, train/cat/1.xml, train/cat/2.xml, and 1 more)" in note


UNREADABLE = {
    "x.heic": b"\0\0\0\x18ftypheic",
    "x.psd": b"8BPS",
    "x.mp4": b"",
    "x.svg": b"<svg/>",
    "picture.txt": b"<?xml?><svg/>",
    "x.npy": b"\x93NUMPY",
    "unknown": b"\0\1\2\3",
    "x.zip": b"PK",
    "x.CR2": b"II*\0",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_images_are_not_left_out_silently(manual, name):
    change = (f"train/cat/{name}", UNREADABLE[name])
    paths = trees("cat", "dog")
    with pytest.raises(ValueError, match="1 files in formats that cannot be read") as error:
        prepare(manual, *paths, change)
    assert name in str(error.value)
    assert "--skip_unreadable" in str(error.value)
    prepared = prepare(manual, *paths, change, skip_unreadable=True)
    assert prepared.notes == [f"left out 1 files that cannot be read here: train/cat/{name}"]
    assert prepared.splits == {"train": 2, "val": 2}


def test_the_archive_that_a_tree_came_from_may_lie_beside_it(manual):
    prepared = prepare(manual, *trees("cat", "dog"), ("pets.zip", b"PK\3\4"), ("pets.pdf", b"%PDF"))
    assert prepared.notes == ["left out 2 files that cannot be read here: pets.pdf, pets.zip"]


def test_images_without_class_folders_are_told_where_to_go(manual):
    with pytest.raises(ValueError, match="it has 1 image without a class: put the images of each"):
        prepare(manual, "cat1.jpg")


def test_a_class_of_only_unreadable_images_is_not_lost(manual):
    change = ("train/eel/1.heic", b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match="1 class folders without images: eel"):
        prepare(manual, *trees("cat", "dog"), change, skip_unreadable=True)


# Copies


def test_copies_across_splits_and_classes_are_noted(manual):
    same, both = image(0, 90), image(0, 91)
    copies = [("train/a/x.jpg", same), ("val/a/y.jpg", same)]
    contradicting = [("train/a/z.jpg", both), ("train/b/z.jpg", both)]
    prepared = prepare(manual, *trees("a", "b"), *copies, *contradicting)
    assert prepared.notes == [
        "images that are in several splits (train and val): 1. Accuracy on one of these splits "
        "says little about a model trained on another",
        "images that are in several classes (a and b, for instance): 1. All but one of their "
        "labels are wrong",
    ]
    options = {"data_dir": manual.parent / "data"}
    val, train = (data.load("folder/x", split=split, **options) for split in ("val", "train"))
    assert data.count_shared(val, train) == data.count_shared(train, val) == 1


def test_copies_in_the_only_split_are_noted(manual):
    """Whoever divides it into train[:90%] and train[90%:] may have copies in both."""
    copies = [(f"a/{name}.jpg", image(0, 90)) for name in "xyz"]
    prepared = prepare(manual, *copies, ("b/w.jpg", image(0, 91)))
    assert prepared.notes == [
        "images that are copies of others in their class: 2. Parts of the split, such as "
        "train[:90%] and train[90%:], may share them"
    ]


def test_copies_that_were_not_looked_for_are_noted(manual, monkeypatch):
    monkeypatch.setattr(shared_examples, "LARGEST_READ", 3)
    prepared = prepare(manual, *trees("a", "b"))
    assert prepared.notes == ["no copies of images were looked for, as there are more than 3"]


def test_a_split_that_is_a_link_to_another_is_noted(manual):
    archives.write_folder(manual, {path: image(0, n) for n, path in enumerate(trees("a", "b"))})
    shutil.rmtree(manual / "val")
    (manual / "val").symlink_to(manual / "train")
    prepared = preparation.prepare("folder/x", manual_dir=manual, data_dir=manual.parent / "data")
    assert "several splits (train and val): 2." in prepared.notes[0]
