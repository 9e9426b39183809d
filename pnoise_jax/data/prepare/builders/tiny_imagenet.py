"""TinyImageNet from its official zip, or the unpacked folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import kinds
from pnoise_jax.data.prepare.sources.archives import Zip
from pnoise_jax.data.prepare.sources.class_folders import (
    ClassFolders,
    find_classes,
    inside,
    refuse_hidden_images,
    require_same,
    top_folders,
)
from pnoise_jax.data.prepare.sources.kinds import Files
from pnoise_jax.data.prepare.sources.missing import missing_files
from pnoise_jax.data.prepare.sources.sources import Folder, Listing, Member, Source, read_text

VERSION = "1.0.0"

_ROOT = "tiny-imagenet-200"
_OFFICIAL = {"classes": 200, "images in train": 100_000, "images in validation": 10_000}


def plan(manual_dir: Path, *, scratch: Path) -> Plan:
    """Plans splits train and validation; classes are the sorted wnids. (`test` has no labels.)

    Args:
      manual_dir: the directory of tiny-imagenet-200.zip or of the folder tiny-imagenet-200, or that
        folder itself.
      scratch: not used.

    Raises:
      FileNotFoundError: the data set, or a file of labels in it, is missing.
      OSError: the zip is cut off or damaged.
      ValueError: labels and images do not agree.
    """
    del scratch
    source = _find(manual_dir)
    listing = source.scan()
    prefix = f"{_ROOT}/" if _ROOT in listing.folders else ""
    _refuse_rearranged(listing, f"{prefix}val", source.path)
    wnids = _read(source, listing, f"{prefix}wnids.txt").split()
    where, part = f"{source.path}: train", inside(listing, f"{prefix}train")
    refuse_hidden_images(source, part, where=where)
    files = kinds.sort_files(source, part)
    kinds.refuse_unreadable(files.unreadable, where=where, fix=kinds.OFFICIAL)
    train = find_classes(files, listing, f"{prefix}train", where=where)
    where = f"{source.path} (wnids.txt, train)"
    names = require_same({"wnids.txt": dict.fromkeys(wnids, ()), "train": train}, where=where)
    lines = _read(source, listing, f"{prefix}val/val_annotations.txt").splitlines()
    pictures = kinds.sort_files(source, inside(listing, f"{prefix}val/images"))
    validation = _validation(pictures, f"{prefix}val/images", lines, names, source.path)
    splits = [
        SplitPlan("train", source, _train_entries(train, names)),
        SplitPlan("validation", source, validation),
    ]
    return Plan(
        name="tiny_imagenet",
        version=VERSION,
        splits=splits,
        class_names=names,
        description="TinyImageNet: classes are the sorted wnids.",
        homepage="http://cs231n.stanford.edu/",
        notes=[*kinds.notes([files], expected=["_boxes.txt"]), *_notes(names, splits)],
    )


def _find(manual_dir: Path) -> Source:
    if (manual_dir / f"{_ROOT}.zip").is_file():
        return Zip(manual_dir / f"{_ROOT}.zip")
    for directory in (manual_dir / _ROOT, manual_dir):
        if (directory / "wnids.txt").is_file():
            return Folder(directory)
    raise missing_files(
        manual_dir,
        "tiny_imagenet",
        [f"{_ROOT}.zip  (237 MiB), or the folder {_ROOT} that it unpacks to"],
        page=f"http://cs231n.stanford.edu/{_ROOT}.zip",
    )


def _refuse_rearranged(listing: Listing, folder: str, path: Path) -> None:
    classes = [name for name in top_folders(listing, folder) if name != "images"]
    if classes:
        raise ValueError(
            f"{path}: {folder} has a folder for each class, {shorten(classes, limit=3)}: some "
            "script has rearranged it. Use the official zip, or prepare this as your own images "
            "(--dataset=folder/<name>)"
        )


def _read(source: Source, listing: Listing, path: str) -> str:
    match = next((member for member in listing.members if member.path == path), None)
    if match is None:
        raise FileNotFoundError(f"{source.path} lacks {path}, which defines the labels")
    return read_text(source, match)


def _train_entries(classes: ClassFolders, names: Sequence[str]) -> list[Entry]:
    return [
        Entry(PurePosixPath(member.path).name, label, member)
        for label, name in enumerate(names)
        for member in classes[name]
    ]


def _validation(
    files: Files, folder: str, lines: Sequence[str], names: Sequence[str], path: Path
) -> list[Entry]:
    where = f"{path}: val_annotations.txt"
    label_of = {name: label for label, name in enumerate(names)}
    images: Mapping[str, Member] = {
        PurePosixPath(member.path).name: member for member in files.images
    }
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        image, wnid = (*map(str.strip, line.split("\t")), "", "")[:2]
        if image not in images:
            raise ValueError(f"{where}, line {number}: there is no image {image!r} in {folder}")
        if wnid not in label_of:
            raise ValueError(f"{where}, line {number}: class {wnid!r} is not in wnids.txt")
        if labels.setdefault(image, label_of[wnid]) != label_of[wnid]:
            raise ValueError(f"{where}, line {number}: {image!r} has two labels")
    unlabelled = sorted(set(images) - set(labels))
    if unlabelled:
        raise ValueError(
            f"{where} has no label for {len(unlabelled)} images: {shorten(unlabelled)}; "
            "use a list and images from the same download"
        )
    return [Entry(image, label, images[image]) for image, label in labels.items()]


def _notes(names: Sequence[str], splits: Sequence[SplitPlan]) -> list[str]:
    counts = {"classes": len(names)} | {f"images in {s.name}": len(s.entries) for s in splits}
    return [
        f"{counts[what]} {what}, the official archive has {number}"
        for what, number in _OFFICIAL.items()
        if counts[what] != number
    ]
