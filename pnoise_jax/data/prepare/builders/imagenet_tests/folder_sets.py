"""ImageNet-V2, -A, -R and -Sketch: one folder per class, in a separate archive for each set.

Records, their order and their labels are those of TFDS's builders. The folders of ImageNet-V2 are
named by the number of the class, 0 to 999: sorting them as strings mislabels nearly all images
(issues 4 and 10 of the repository modestyachts/ImageNetV2). The others are named by synset.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pnoise_jax.data.prepare.builders.imagenet import synsets
from pnoise_jax.data.prepare.builders.imagenet_tests import archive
from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import kinds
from pnoise_jax.data.prepare.sources.class_folders import (
    ClassFolders,
    find_classes,
    inside,
    refuse_hidden_images,
    top_folders,
)
from pnoise_jax.data.prepare.sources.missing import missing_files
from pnoise_jax.data.prepare.sources.sources import Member

_SYNSET = re.compile("n[0-9]{8}")


@dataclasses.dataclass(frozen=True)
class FolderSet:
    """One of the sets.

    Attributes:
      version: of the data set in TFDS.
      title: the name of the set, for messages.
      archives: names of the archive, the official one first.
      size: of the archive, as text.
      folder: the folder that contains the class folders.
      num_classes: the number of class folders that there must be.
      num_images: the number of images in the official archive.
      page: the page from which to download it.
      numbered: whether folders are named by the number of the class, not by its synset.
      with_folder: whether `file_name` contains the folder as well.
      joined_by: the text that joins folder and file in the name by which TFDS orders images; None
        if that is `file_name`.
      jpeg_only: whether TFDS declares the images as JPEG.
    """

    version: str
    title: str
    archives: Sequence[str]
    size: str
    folder: str
    num_classes: int
    num_images: int
    page: str
    numbered: bool = False
    with_folder: bool = True
    joined_by: str | None = None
    jpeg_only: bool = True


def _v2(published: str) -> FolderSet:
    name = f"imagenetv2-{published}"
    return FolderSet(
        version="3.0.0",
        title=f"ImageNet-V2, {published}",
        archives=(f"{name}.tar.gz", f"{name}.tar"),
        size="1.2 GiB",
        folder=f"{name}-format-val",
        num_classes=1000,
        num_images=10_000,
        page="https://huggingface.co/datasets/vaishaal/ImageNetV2",
        numbered=True,
        joined_by="_",
    )


SETS = {
    "imagenet_a": FolderSet(
        version="0.1.0",
        title="ImageNet-A",
        archives=("imagenet-a.tar",),
        size="656 MiB",
        folder="imagenet-a",
        num_classes=200,
        num_images=7_500,
        page="https://github.com/hendrycks/natural-adv-examples",
        with_folder=False,
    ),
    "imagenet_r": FolderSet(
        version="0.2.0",
        title="ImageNet-R",
        archives=("imagenet-r.tar",),
        size="2.0 GiB",
        folder="imagenet-r",
        num_classes=200,
        num_images=30_000,
        page="https://github.com/hendrycks/imagenet-r",
        joined_by="_",
    ),
    "imagenet_sketch": FolderSet(
        version="1.0.0",
        title="ImageNet-Sketch",
        archives=("ImageNet-Sketch.zip",),
        size="7.1 GiB",
        folder="sketch",
        num_classes=1000,
        num_images=50_889,
        page="https://github.com/HaohanWang/ImageNet-Sketch",
        jpeg_only=False,
    ),
    "imagenet_v2/matched-frequency": _v2("matched-frequency"),
    "imagenet_v2/threshold-0.7": _v2("threshold0.7"),
    "imagenet_v2/topimages": _v2("top-images"),
}


def plan(manual_dir: Path, *, scratch: Path, name: str) -> Plan:
    """Plans the split test, whose labels are positions among the 1000 synsets of ImageNet.

    Args:
      manual_dir: the directory of the archive, or of the folder that it unpacks to.
      scratch: the directory for unpacking an archive that is compressed as a whole.
      name: one of `SETS`.

    Raises:
      FileNotFoundError: neither the archive nor the folder exists.
      OSError: the archive is cut off or damaged.
      ValueError: its folders are not those of the official archive, or see `find_classes`.
    """
    published = SETS[name]
    source = archive.find(manual_dir, published.archives, published.folder, scratch=scratch)
    if source is None:
        wanted = f"{published.archives[0]}  ({published.size}), or the folder {published.folder}"
        raise missing_files(manual_dir, name, [f"{wanted} that it unpacks to"], page=published.page)
    where = str(source.path)
    listing = source.scan()
    root = archive.root_of(listing, published.folder)
    part, folders = inside(listing, root), top_folders(listing, root)
    label_of = _labels(folders, published, where)
    refuse_hidden_images(source, part, where=where)
    files = kinds.sort_files(source, part)
    kinds.refuse_unreadable(files.unreadable, where=where, fix=kinds.OFFICIAL)
    classes = find_classes(files, listing, root, where=where)
    _refuse_deeper(classes, 0 if root == "." else 1, where)
    entries = [
        _entry(published, folder, member, label_of[folder])
        for folder in sorted(classes, key=lambda folder: label_of[folder])
        for member in classes[folder]
    ]
    notes = list(kinds.notes([files], expected=["README.txt"]))
    if len(entries) != published.num_images:
        official = f"the official archive has {published.num_images}"
        notes.append(f"{len(entries)} images, {official}")
    return Plan(
        name=name,
        version=published.version,
        splits=[SplitPlan("test", source, entries)],
        class_names=synsets(),
        description=f"{published.title}, with the labels of ImageNet, as TFDS stores it.",
        homepage=published.page,
        repairs=frozenset(),
        jpeg_only=published.jpeg_only,
        notes=notes,
    )


def _entry(published: FolderSet, folder: str, member: Member, label: int) -> Entry:
    file = PurePosixPath(member.path).name
    key = f"{folder}/{file}" if published.with_folder else file
    joined = published.joined_by
    return Entry(key, label, member, hash_key="" if joined is None else f"{folder}{joined}{file}")


def _labels(folders: Sequence[str], published: FolderSet, where: str) -> dict[str, int]:
    """The label of each class folder.

    Raises:
      ValueError: the folders are not the official ones.
    """
    if published.numbered:
        _require_numbers(folders, published, where)
        return {folder: int(folder) for folder in folders}
    known = {synset: label for label, synset in enumerate(synsets())}
    strangers = [folder for folder in folders if folder not in known]
    if strangers:
        raise ValueError(
            f"{where} has {len(strangers)} class folders that are not synsets of ImageNet: "
            f"{shorten(strangers)}. The folders of {published.title} have names such as n01440764: "
            f"{kinds.OFFICIAL}"
        )
    if len(folders) != published.num_classes:
        missing = [synset for synset in known if synset not in folders]
        listed = f", without {shorten(missing)}" if published.num_classes == len(known) else ""
        raise ValueError(
            f"{where} has {len(folders)} class folders{listed}, but {published.title} has "
            f"{published.num_classes}: it is incomplete; download it again"
        )
    return {folder: known[folder] for folder in folders}


def _require_numbers(folders: Sequence[str], published: FolderSet, where: str) -> None:
    """Raises ValueError unless the folders are 0, 1, ..., 999."""
    expected = [str(number) for number in range(published.num_classes)]
    if set(folders) == set(expected):
        return
    is_numbers = bool(folders) and all(folder.isdecimal() for folder in folders)
    numbers = {int(folder) for folder in folders} if is_numbers else set()
    if numbers == set(range(1, published.num_classes + 1)):
        why = "its class folders count from 1, so each would get the label of the next class"
    elif is_numbers and any(folder != str(int(folder)) for folder in folders):
        padded = next(folder for folder in folders if folder != str(int(folder)))
        why = (
            f"a class folder is called {padded!r}: some script has renamed them, and it is not "
            "clear whether by their numbers or by their places in the order of strings"
        )
    elif folders and all(_SYNSET.fullmatch(folder) for folder in folders):
        why = f"its class folders are named by synset, {folders[0]}: some script has renamed them"
    else:
        missing = [name for name in expected if name not in set(folders)]
        strangers = [folder for folder in folders if folder not in set(expected)]
        lacks = f"it lacks the class folders {shorten(missing)}" if missing else ""
        has = f"it has folders that are not class numbers: {shorten(strangers)}"
        why = " and ".join(filter(None, (lacks, has if strangers else "")))
    raise ValueError(
        f"{where}: {why}. The official archive of {published.title} has the folders 0 to 999, each "
        "named by the number of its class: use that archive"
    )


def _refuse_deeper(classes: ClassFolders, depth: int, where: str) -> None:
    deeper = [
        m.path for members in classes.values() for m in members if m.path.count("/") > depth + 1
    ]
    if deeper:
        raise ValueError(
            f"{where} has images in folders below the class folders: {shorten(deeper)}; "
            f"{kinds.OFFICIAL}"
        )
