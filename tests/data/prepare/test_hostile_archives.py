"""Archives that were made to do harm, or packed by odd programs: named, and nothing is written."""

import os
import struct
import tarfile
import tracemalloc
import zipfile

import pytest

from pnoise_jax.data import prepare as preparation
from pnoise_jax.data.prepare.sources import sources
from pnoise_jax.data.prepare.sources.archives import Tar, Zip
from tests.data import archives
from tests.data.archives import image

TINY = "tiny-imagenet-200"


@pytest.fixture
def manual(tmp_path):
    directory = tmp_path / "manual"
    directory.mkdir()
    return directory


def prepare(name, manual):
    return preparation.prepare(name, manual_dir=manual, data_dir=manual.parent / "data")


def require_untouched(manual):
    """Nothing is left of the attempt, neither in the data directory nor beside it."""
    assert sorted(path.name for path in manual.parent.iterdir()) == ["data", "manual"]
    assert not list((manual.parent / "data").iterdir())


def extended_tar(manual, *members):
    """train.tar of two classes, and these: (name, bytes, attributes of the header)."""
    with tarfile.open(manual / "train.tar", "w") as tar:
        for name in ("train/a/1.jpg", "train/b/1.jpg"):
            add(tar, name, image(0, 0))
        for name, data, attributes in members:
            add(tar, name, data, **attributes)


def add(tar, name, data, **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    tar.addfile(info, archives.io.BytesIO(data) if data else None)


HOSTILE_TARS = {
    "a path that leads out": ("train/../../../x.jpg", {}, r"x\.jpg' leads out of the archive"),
    "a path that begins so": ("../../x/1.jpg", {}, "leads out of the archive"),
    "a whole path": ("/tmp/x/1.jpg", {}, r"'/tmp/x/1\.jpg' leads out of the archive"),
    "a whole path of two slashes": ("//x/1.jpg", {}, "leads out of the archive"),
    "a symbolic link": (
        *("train/a/3.jpg", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        r"3\.jpg is a link",
    ),
    "a hard link": (
        *("train/a/3.jpg", {"type": tarfile.LNKTYPE, "linkname": "train/a/1.jpg"}),
        r"3\.jpg is a link",
    ),
    "a device": (
        "train/a/3.jpg",
        {"type": tarfile.CHRTYPE, "devmajor": 1},
        "is not a regular file",
    ),
    "a pipe": ("train/a/3.jpg", {"type": tarfile.FIFOTYPE}, "is not a regular file"),
    "a member twice": ("train/a/1.jpg", {}, r"has train/a/1\.jpg twice"),
    "a member twice, written otherwise": ("./train/a//1.jpg", {}, r"has train/a/1\.jpg twice"),
    "a size beyond the end": ("train/a/3.jpg", {"size": 1 << 40}, "cut off or damaged"),
    "an escape in a name": ("train/a\x1b[2J/1.jpg", {}, r"a\\x1b\[2J"),
    "a line break in a name": ("train/a\nb/1.jpg", {}, r"'a\\nb'"),
}


@pytest.mark.parametrize("case", HOSTILE_TARS)
def test_hostile_tars(manual, case):
    name, attributes, message = HOSTILE_TARS[case]
    data = b"" if attributes else image(0, 1)
    extended_tar(manual, (name, data, attributes))
    with pytest.raises((ValueError, OSError), match=message) as error:
        prepare("visda2017", manual)
    assert str(error.value).isprintable()
    require_untouched(manual)


def test_tars_joined_by_cat(manual):
    """A reader ends at the first one's end; the classes of the second would be lost."""
    extended_tar(manual, ("train/a/2.jpg", image(0, 1), {}))
    second = manual / "second.tar"
    with tarfile.open(second, "w") as tar:
        add(tar, "train/c/1.jpg", image(0, 2))
    with (manual / "train.tar").open("ab") as file:
        file.write(bytes(10_240) + second.read_bytes())
    second.unlink()
    with pytest.raises(OSError, match=r"train\.tar continues after the end of its tar"):
        prepare("visda2017", manual)
    require_untouched(manual)


def test_an_escape_in_the_name_of_an_image_is_harmless(manual):
    extended_tar(manual, ("train/a/3\x1b[2J.jpg", image(0, 1), {}))
    assert prepare("visda2017", manual).splits == {"train": 3}


def tiny_files():
    files = {f"{TINY}/wnids.txt": b"n1\nn2\n"}
    files[f"{TINY}/val/val_annotations.txt"] = b"v.JPEG\tn1\t0\t0\t1\t1\n"
    files[f"{TINY}/val/images/v.JPEG"] = image(0, 2)
    return files | {f"{TINY}/train/n{i}/images/n{i}_0.JPEG": image(i, 0) for i in (1, 2)}


def write_tiny(manual, changes=(), *, compression=zipfile.ZIP_STORED):
    path = manual / f"{TINY}.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {**tiny_files(), **dict(changes)}.items():
            archive.writestr(name, data)
    return path


def patch_directory(path, name, **changes):
    """Changes a member's entry in the directory of a zip: crc, packed, size, offset."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2")
    while content[at + 46 : at + 46 + len(name)] != name.encode():
        at = content.index(b"PK\1\2", at + 4)
    offsets = {"crc": 16, "packed": 20, "size": 24, "offset": 42}
    for field, value in changes.items():
        content[at + offsets[field] : at + offsets[field] + 4] = struct.pack("<I", value)
    path.write_bytes(content)


@pytest.mark.parametrize("name", [f"{TINY}/train/n1/../../../x.JPEG", "/x/1.JPEG", "../x"])
def test_zips_whose_paths_lead_out(manual, name):
    write_tiny(manual, [(name, image(0, 9))])
    with pytest.raises(OSError, match="leads out of the archive"):
        prepare("tiny_imagenet", manual)
    require_untouched(manual)


BOMB = f"{TINY}/train/n1/images/bomb.JPEG"


@pytest.mark.parametrize("member", [BOMB, f"{TINY}/wnids.txt"])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(manual, member, monkeypatch):
    """A real one: a small file that any program unpacks to a large one."""
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 20)
    write_tiny(manual, [(member, bytes(64 << 20))], compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(OSError, match=r"has 67,108,864 bytes unpacked, but at most 1,048,576"):
        prepare("tiny_imagenet", manual)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20
    require_untouched(manual)


def test_a_list_that_unpacks_to_too_much(manual, monkeypatch):
    """bzip2 makes a megabyte of thirty bytes, so packed sizes tell little."""
    monkeypatch.setattr(sources, "MAX_TEXT", 1 << 20)
    write_tiny(
        manual, {f"{TINY}/wnids.txt": b"n1\nn2\n" * (1 << 18)}, compression=zipfile.ZIP_BZIP2
    )
    with pytest.raises(OSError, match=r"wnids\.txt has 1,572,864 bytes unpacked, but at most"):
        prepare("tiny_imagenet", manual)
    require_untouched(manual)


def test_a_size_that_the_packed_bytes_cannot_have(manual):
    path = write_tiny(manual)
    patch_directory(path, f"{TINY}/train/n1/images/n1_0.JPEG", size=4_000_000_000)
    with pytest.raises(
        OSError, match=r"claims to have 4,000,000,000 bytes, which cannot be unpacked from"
    ):
        prepare("tiny_imagenet", manual)


def test_a_member_that_unpacks_to_more_than_it_says(manual):
    """Only the stated size is unpacked."""
    path = write_tiny(manual, [(BOMB, bytes(64 << 20))], compression=zipfile.ZIP_DEFLATED)
    patch_directory(path, BOMB, size=1000)
    (member,) = [m for m in Zip(path).scan().members if m.path == BOMB]
    tracemalloc.start()
    with Zip(path).open() as read, pytest.raises(OSError, match=r"bomb\.JPEG: Bad CRC"):
        read(member)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_member_that_unpacks_to_less_than_it_says(manual):
    path = write_tiny(manual, [(BOMB, b"x" * 5000)], compression=zipfile.ZIP_DEFLATED)
    patch_directory(path, BOMB, size=5001)
    (member,) = [m for m in Zip(path).scan().members if m.path == BOMB]
    with Zip(path).open() as read, pytest.raises(OSError, match=r"bomb\.JPEG"):
        read(member)


def test_members_that_share_their_bytes(manual):
    """As in bombs that unpack to petabytes from one kernel."""
    path = write_tiny(manual, [(BOMB, image(0, 9))])
    with zipfile.ZipFile(path) as archive:
        other = archive.getinfo(f"{TINY}/train/n1/images/n1_0.JPEG")
    patch_directory(path, BOMB, offset=other.header_offset)
    with pytest.raises(OSError, match="share bytes of the zip"):
        prepare("tiny_imagenet", manual)


def test_a_member_twice(manual):
    path = write_tiny(manual)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(f"{TINY}/wnids.txt", "n2\nn1\nn3\n")
    with pytest.raises(OSError, match=r"has tiny-imagenet-200/wnids\.txt twice"):
        prepare("tiny_imagenet", manual)


def test_an_encrypted_member(manual):
    path = write_tiny(manual, [(BOMB, image(0, 9))])
    content = path.read_bytes()
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.rindex(BOMB.encode(), 0, content.index(BOMB.encode()) + len(BOMB))
        at = content.rindex(mark, 0, at) if mark == b"PK\3\4" else content.rindex(mark)
        content = content[: at + flags] + b"\1\0" + content[at + flags + 2 :]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bomb\.JPEG.*(encrypted|password)"):
        prepare("tiny_imagenet", manual)


def test_what_is_read_of_a_tar_has_a_limit(manual, monkeypatch):
    extended_tar(manual, ("train/image_list.txt", b"x\n" * 1000, {}))
    monkeypatch.setattr(sources, "MAX_BYTES", 1999)
    with pytest.raises(OSError, match=r"image_list\.txt has 2,000 bytes"):
        prepare("visda2017", manual)


def test_first_bytes(manual):
    """The same from a folder, a tar and a zip; None if a file cannot be opened."""
    files = {"a/one": b"1" * 1000, "a/two": b"", "b": b"3"}
    archives.write_folder(manual / "folder", files)
    archives.write_tar(manual / "x.tar", files)
    archives.write_zip(manual / "x.zip", files)
    expected = {"a/one": b"1" * sources.HEAD, "a/two": b"", "b": b"3"}
    for source in (
        sources.Folder(manual / "folder"),
        Tar(manual / "x.tar"),
        Zip(manual / "x.zip"),
    ):
        members = source.scan().members
        heads = source.heads(members)
        assert dict(zip((m.path for m in members), heads, strict=True)) == expected
    gone = sources.Member("gone", 1)
    assert list(sources.Folder(manual / "folder").heads([gone])) == [None]


# Folders that lead elsewhere


def folder(manual, **links):
    archives.write_folder(manual, {"a/1.jpg": image(0, 0), "b/1.jpg": image(1, 0)})
    for path, target in links.items():
        os.symlink(target, manual / path.replace("__", "/"))


def test_a_link_to_a_folder_of_other_files(manual, tmp_path):
    """It is a class without images; none of its files is stored."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "passwd").write_text("root:x:0:0")
    folder(manual, c=tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="1 class folders without images: c"):
        prepare("folder/x", manual)


def test_a_link_to_a_device(manual):
    folder(manual, a__2="/dev/zero")
    with pytest.raises(OSError, match=r"a/2 is neither a file nor a folder"):
        prepare("folder/x", manual)


def test_descriptors_are_closed(manual):
    """Also if an archive is refused."""
    extended_tar(manual, ("../x.jpg", image(0, 1), {}))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(OSError, match="leads out"):
            Tar(manual / "train.tar").scan()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
