"""Data sets of domains from their published lists: labels, order, splits, and bad lists."""

import json
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pnoise_jax import data
from pnoise_jax.data import prepare as preparation
from pnoise_jax.data.class_names import match_classes
from pnoise_jax.data.prepare.builders import office_home
from tests.data import archives
from tests.data.archives import image

OFFICE = "OfficeHomeDataset_10072016"
PUBLISHED = ("TV", "Bed", "Batteries", "Backpack", "Alarm_Clock")
MAKERS = {
    "domainnet": archives.make_domainnet,
    "office_home": archives.make_office_home,
    "visda2017": archives.make_visda,
}


@pytest.fixture
def manual(tmp_path):
    """The directory of the downloads; `prepare` and `load` use one beside it."""
    directory = tmp_path / "manual"
    directory.mkdir()
    return directory


def prepare(name, directory, **options):
    data_dir = directory.parent / "data"
    return preparation.prepare(name, manual_dir=directory, data_dir=data_dir, **options)


def load(name, directory, split):
    return data.load(name, split=split, data_dir=directory.parent / "data")


def stored_names(prepared, split):
    source = tfds.builder_from_directory(prepared.path).as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return [example["file_name"].decode() for example in source]


def test_without_lists_images_are_in_the_order_of_their_names(manual, monkeypatch):
    """Whatever order an archive lists its members in."""
    zip_up, tar_up = archives.write_zip, archives.write_tar

    def backwards(files):
        return dict(reversed(files.items()))

    monkeypatch.setattr(archives, "write_zip", lambda path, files: zip_up(path, backwards(files)))
    monkeypatch.setattr(archives, "write_tar", lambda path, files: tar_up(path, backwards(files)))
    archives.make_office_home(manual, per_class=3)
    archives.make_visda(manual, per_class=3, changes={"train/image_list.txt": None})
    for name, split, note in (
        ("office_home", "art", "the images of a class are in the order of their names"),
        ("visda2017", "train", "images are in the order of classes and names"),
    ):
        prepared = prepare(name, manual)
        assert note in "\n".join(prepared.notes)
        names = stored_names(prepared, split)
        classes = list(dict.fromkeys(name.split("/")[0] for name in names))
        assert len(names) == prepared.splits[split]
        assert names == sorted(names, key=lambda name: (classes.index(name.split("/")[0]), name))


# DomainNet


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize("prefix", ["", "./data/DomainNet/"])
def test_domainnet_follows_its_lists(manual, extracted, prefix):
    domains = ("clipart", "quickdraw")
    archives.make_domainnet(manual, domains=domains, extracted=extracted, prefix=prefix)
    prepared = prepare("domainnet", manual)
    names = ["airplane", "cello", "cell_phone", "The_Mona_Lisa", "t-shirt"]
    assert list(prepared.class_names) == names
    sizes = {"train": 15, "test": 10}
    assert prepared.splits == {f"{d}_{part}": n for d in domains for part, n in sizes.items()}
    for domain, first, kind in (("clipart", 0, "JPEG"), ("quickdraw", 30, "PNG")):
        for part, numbers in (("train", (4, 1, 5)), ("test", (2, 3))):
            dataset = load("domainnet", manual, f"{domain}_{part}")
            expected = [image(c, first + i, format=kind) for c in range(5) for i in numbers]
            assert [bytes(x) for x in dataset.images] == expected
            assert dataset.labels.tolist() == list(np.repeat(np.arange(5), len(numbers)))
            assert dataset.class_names == tuple(names)


def test_both_protocols_of_domainnet_are_splits(manual):
    archives.make_domainnet(manual)
    prepare("domainnet", manual)
    train, test = (load("domainnet", manual, f"real_{part}") for part in ("train", "test"))
    union = load("domainnet", manual, "real_train+real_test")
    assert [len(x) for x in (train, test, union)] == [15, 10, 25]
    assert [bytes(x) for x in union.images] == [*map(bytes, train.images), *map(bytes, test.images)]


def test_a_class_may_be_missing_in_one_list(manual):
    """In the official lists `painting` has no training image of class 327."""
    archives.make_domainnet(manual, domains=("painting",), extracted=True)
    path = manual / "painting_train.txt"
    lines = [line for line in path.read_text().splitlines() if not line.endswith(" 2")]
    path.write_text("\n".join(lines))
    prepared = prepare("domainnet", manual)
    assert prepared.splits == {"painting_train": 12, "painting_test": 10}
    train = load("domainnet", manual, "painting_train")
    assert train.num_classes == 5
    assert sorted(set(train.labels.tolist())) == [0, 1, 3, 4]
    assert "left out 3 images in no list" in "\n".join(prepared.notes)


def test_notes_of_domainnet_say_what_is_not_official(manual):
    archives.make_domainnet(manual, domains=("sketch",))
    notes = prepare("domainnet", manual).notes
    assert "no clipart.zip, so no splits of 'clipart'" in notes
    assert "sketch_train has 15 images, the official list 48212" in notes
    assert "5 classes, the official lists have 345" in notes


def test_domainnet_says_what_to_download(manual):
    with pytest.raises(FileNotFoundError, match=r"clipart\.zip(.|\n)*ai\.bu\.edu"):
        prepare("domainnet", manual)
    archives.make_domainnet(manual, changes={"real_test.txt": None})
    with pytest.raises(FileNotFoundError, match=r"made from:\n  real_test\.txt\n"):
        prepare("domainnet", manual)


# Office-Home


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize("real_world", ["Real World", "Real_World"])
@pytest.mark.parametrize("prefix", ["./", "./data/office-home/images/"])
def test_office_home_follows_its_lists(manual, extracted, real_world, prefix):
    domains = ("Art", "Clipart", "Product", real_world)
    options = {"domains": domains, "lists": PUBLISHED, "prefix": prefix}
    archives.make_office_home(manual, extracted=extracted, **options)
    prepared = prepare("office_home", manual)
    assert list(prepared.class_names) == list(PUBLISHED)
    listed = [f"{name}/{i:05d}.jpg" for name in PUBLISHED for i in (2, 1)]
    for split in ("art", "clipart", "product", "real_world"):
        assert stored_names(prepared, split) == listed
        dataset = load("office_home", manual, split)
        assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        for order in ("class_sorted", "stored"):
            indices = data.evaluation_order(dataset.labels, order, seed=0)
            assert indices.tolist() == list(range(10))
    settings = json.loads((prepared.path / "preparation.json").read_text())
    assert (settings["class_order"], settings["order"]) == ("published", "listed")


def test_lists_may_lie_in_the_folder_of_the_domains(manual):
    archives.make_office_home(manual, lists=PUBLISHED, extracted=True)
    for path in manual.glob("*.txt"):
        path.rename(manual / OFFICE / path.name)
    assert list(prepare("office_home", manual).class_names) == list(PUBLISHED)


def test_without_lists_classes_are_in_the_published_order_and_images_in_that_of_names(manual):
    archives.make_office_home(manual, classes=("Zebra", "TV", "Bed", "Abacus", "Drill"))
    prepared = prepare("office_home", manual)
    names = ["Drill", "Bed", "TV", "Abacus", "Zebra"]  # unknown ones come last
    assert list(prepared.class_names) == names
    expected = [f"{name}/{i:05d}.jpg" for name in names for i in (1, 2)]
    assert stored_names(prepared, "art") == expected
    assert any("no lists (Art.txt and so on)" in note for note in prepared.notes)


def test_the_published_order_of_office_home():
    names = office_home.CLASSES
    assert len(set(names)) == len(names) == 65
    assert (names[0], names[33], names[56], names[64]) == ("Drill", "Alarm_Clock", "TV", "Marker")


def test_an_alphabetical_head_finds_its_classes_by_name():
    names = office_home.CLASSES
    match = match_classes(sorted(names), names, whose="the head and Office-Home", number=65)
    assert match.kind == "mapped"
    assert [sorted(names)[i] for i in match.order] == list(names)


def test_what_an_earlier_version_has_prepared_is_used_and_the_new_one_named(manual):
    archives.make_office_home(manual)
    path = prepare("office_home", manual).path
    path.rename(path.with_name("1.0.0"))
    again = prepare("office_home", manual)
    assert not again.is_new
    assert any("it is version 1.0.0; new in 2.0.0: labels" in note for note in again.notes)


# VisDA-2017


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize("prefix", ["", "./data/VisDA/validation/"])
def test_visda_is_stored_in_the_order_of_its_list(manual, extracted, prefix):
    paths = [
        f"{name}/validation_{label}_{i}.jpg"
        for label, name in enumerate(archives.VISDA_CLASSES)
        for i in (1, 0)
    ]
    lines = [f"{prefix}{path} {i // 2}\n" for i, path in enumerate(paths)]
    changes = {"validation/image_list.txt": "".join(lines).encode()}
    archives.make_visda(manual, splits=["validation"], extracted=extracted, changes=changes)
    prepared = prepare("visda2017", manual)
    assert list(prepared.class_names) == list(archives.VISDA_CLASSES)
    assert stored_names(prepared, "validation") == paths
    assert load("visda2017", manual, "validation").labels.tolist() == [i // 2 for i in range(24)]


def test_visda_without_a_list_says_so(manual):
    changes = {"validation/image_list.txt": None}
    archives.make_visda(manual, splits=["validation"], changes=changes)
    prepared = prepare("visda2017", manual)
    assert any("no image_list.txt in" in note for note in prepared.notes)
    assert stored_names(prepared, "validation")[:2] == [
        "aeroplane/validation_0_0.jpg",
        "aeroplane/validation_0_1.jpg",
    ]


# Bad lists: data set, list, what is done to its lines, what the message says

EDITS = {
    "missing": (
        lambda lines: [x.replace("00001.jpg", "00009.jpg") for x in lines],
        r"5 images that are missing \(line 2: 'TV/00009.jpg'; line 4: .*; and 2 more\)",
    ),
    "absolute": (
        lambda lines: [f"/data/{x.removeprefix('./')}" for x in lines],
        r"10 absolute paths \(line 1: '/data/Art/TV/00002.jpg'; .*; and 7 more\)",
    ),
    "absolute on Windows": (
        lambda lines: [f"C:\\{x}" for x in lines],
        r"10 absolute paths",
    ),
    "out of the folder": (
        lambda lines: [*lines, "./Art/../../secret/x.jpg 0"],
        r"1 paths that lead out of the folder \(line 11: './Art/../../secret/x.jpg'\)",
    ),
    "other domain": (
        lambda lines: [*lines[:-1], lines[-1].replace("Art", "Clipart")],
        r"1 paths that are not in the folder 'Art' \(line 10: './Clipart/Alarm_Clock",
    ),
    "no class": (
        lambda lines: [*lines, "x.jpg 0"],
        r"1 paths without the folder of a class \(line 11: 'x.jpg'\)",
    ),
    "out of range": (
        lambda lines: [x.replace(" 4", " 5") for x in lines],
        r"2 labels out of range \(of 5 classes: 0 to 4\) \(line 9: ",
    ),
    "negative": (
        lambda lines: [x.replace(" 0", " -1") for x in lines],
        r"2 labels out of range",
    ),
    "another class": (
        lambda lines: [*lines[:-1], lines[-1].replace(" 4", " 0")],
        r"1 labels that contradict the class folder \(line 10: 'Alarm_Clock/00001.jpg' has label 0,"
        r" but 'Alarm_Clock' is 4 in .*Art.txt, line 9\)",
    ),
    "two classes": (
        lambda lines: [x.replace(" 4", " 0") for x in lines],
        r"2 labels that contradict the class folder \(line 9: .* has label 0, which is 'TV' in",
    ),
    "twice": (
        lambda lines: [*lines, lines[3]],
        r"1 repeated images \(line 11: 'Bed/00001.jpg', as in line 4\)",
    ),
    "twice in other words": (
        lambda lines: [*lines, lines[0].replace("./Art", "x/./Art/")],
        r"1 repeated images \(line 11",
    ),
    "no label": (
        lambda lines: [*lines, "./Art/TV/00001.jpg", "./Art/TV/00001.jpg x"],
        r"2 lines that are not `path label` \(line 11: ",
    ),
    "label of many digits": (
        lambda lines: [*lines, f"./Art/TV/00009.jpg {'9' * 5000}"],
        r"1 lines that are not `path label` \(line 11: ",
    ),
    "empty": (lambda lines: ["", "  "], r"Art.txt is empty, so 'Art' would have no images"),
}


@pytest.mark.parametrize("case", EDITS)
@pytest.mark.parametrize("extracted", [False, True])
def test_bad_lists_are_refused_with_numbers_and_examples(manual, case, extracted):
    edit, message = EDITS[case]
    archives.make_office_home(manual, lists=PUBLISHED, extracted=extracted)
    path = manual / "Art.txt"
    path.write_text("".join(f"{line}\n" for line in edit(path.read_text().splitlines())))
    with pytest.raises(ValueError, match=message):
        prepare("office_home", manual)
    assert not list(manual.with_name("data").iterdir())  # nothing was begun


def test_lists_of_other_lines_and_blanks_are_read(manual):
    """Byte order mark, Windows' ends of lines, blank lines, tabs, blanks in paths."""
    names = ("Alarm Clock", "Desk  Lamp")
    archives.make_office_home(manual, lists=names, classes=names, extracted=True)
    path = manual / "Real_World.txt"
    text = path.read_text().replace("Real_World", "Real World").replace(" 0\n", "\t0\r\n\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    prepared = prepare("office_home", manual)
    assert list(prepared.class_names) == list(names)
    assert stored_names(prepared, "real_world")[0] == "Alarm Clock/00002.jpg"


def test_some_lists_without_the_others(manual):
    archives.make_office_home(manual, lists=PUBLISHED, changes={"Product.txt": None})
    with pytest.raises(FileNotFoundError, match=r"there are no lists of product: add them"):
        prepare("office_home", manual)


def test_images_that_a_list_leaves_out_are_counted(manual):
    archives.make_office_home(manual, lists=PUBLISHED)
    path = manual / "Product.txt"
    path.write_text("\n".join(path.read_text().splitlines()[::2]))
    prepared = prepare("office_home", manual)
    assert prepared.splits["product"] == 5
    assert "left out 5 images of product that are not in its list" in prepared.notes


@pytest.mark.parametrize("name", ["domainnet", "office_home", "visda2017"])
@pytest.mark.parametrize("linked", ["image", "class"])
def test_links_out_of_the_folder_are_refused(manual, name, linked):
    options = {"lists": PUBLISHED} if name == "office_home" else {}
    MAKERS[name](manual, extracted=True, **options)
    folder = (
        manual
        / {
            "domainnet": "clipart/cello",
            "office_home": f"{OFFICE}/Clipart/Bed",
            "visda2017": "validation/bus",
        }[name]
    )
    path = folder if linked == "class" else sorted(folder.iterdir())[0]
    outside = manual.parent / "elsewhere"
    path.rename(outside)
    os.symlink(outside, path)
    expected = rf"\d links that lead out of the folder \(line \d+: '{folder.name}/"
    if linked == "image":
        expected = expected.replace(r"\d", "1", 1)
    with pytest.raises(ValueError, match=expected):
        prepare(name, manual)


@pytest.mark.parametrize("name", MAKERS)
def test_links_inside_the_folder_and_to_a_whole_domain_are_followed(manual, name):
    options = {"lists": PUBLISHED} if name == "office_home" else {}
    MAKERS[name](manual, extracted=True, **options)
    domain = (
        manual
        / {
            "domainnet": "clipart",
            "office_home": f"{OFFICE}/Clipart",
            "visda2017": "validation",
        }[name]
    )
    domain.rename(manual.parent / "elsewhere")
    os.symlink(manual.parent / "elsewhere", domain)
    folder = next(path for path in sorted(domain.iterdir()) if path.is_dir())
    first, second = sorted(folder.iterdir())[:2]
    second.unlink()
    os.symlink(first.name, second)
    assert prepare(name, manual).is_new


def test_an_empty_domain(manual):
    archives.make_domainnet(manual, extracted=True)
    (manual / "sketch").mkdir()
    for part in ("train", "test"):
        (manual / f"sketch_{part}.txt").write_text("sketch/cello/sketch_002_000001.jpg 1\n")
    with pytest.raises(ValueError, match="has no files, so the domain 'sketch' would be empty"):
        prepare("domainnet", manual)


def test_an_image_in_both_lists_of_a_domain(manual):
    archives.make_domainnet(manual)
    with open(manual / "clipart_test.txt", "a") as file:
        file.write("clipart/cello/clipart_002_000004.jpg 1\n")
    message = r"1 images are in both clipart_train.txt and clipart_test.txt: cello/clipart_002_00"
    with pytest.raises(ValueError, match=message):
        prepare("domainnet", manual)


def test_lists_that_contradict_each_other(manual):
    archives.make_domainnet(manual)
    path = manual / "real_test.txt"
    swapped = path.read_text().replace(" 1\n", " x\n").replace(" 0\n", " 1\n")
    path.write_text(swapped.replace(" x\n", " 0\n"))
    message = r"real_test.txt has 4 labels that contradict the class folder \(line 1: 'airplane/"
    with pytest.raises(ValueError, match=message):
        prepare("domainnet", manual)


def test_a_list_that_is_not_text(manual):
    archives.make_domainnet(manual)
    (manual / "real_test.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    with pytest.raises(ValueError, match=r"real_test\.txt is not a list in UTF-8"):
        prepare("domainnet", manual)
