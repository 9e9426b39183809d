"""VisDA-2017 (classification) from its official tars, or from what comes out of them."""

from collections.abc import Sequence
from pathlib import Path

from pnoise_jax.data.prepare import kinds
from pnoise_jax.data.prepare.archives import Tar
from pnoise_jax.data.prepare.class_folders import (
    entries,
    find_classes,
    inside,
    refuse_hidden_images,
    require_same,
    top_folders,
)
from pnoise_jax.data.prepare.missing import missing_files
from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import Folder, Listing, Source, read_text

VERSION = "1.0.0"
SPLITS = ("train", "validation")

_NUM_CLASSES = 12
_LIST = "image_list.txt"


def plan(manual_dir: Path, *, scratch: Path) -> Plan:
    """Splits train (renderings) and validation (photographs): those that are there.

    Args:
      manual_dir: with train.tar and validation.tar, or the folders that come out of them.
      scratch: not needed.

    Raises:
      FileNotFoundError: none is there.
      OSError: a tar is cut off or damaged.
      ValueError: splits differ in their classes; image_list.txt says something else than the
        folders; or see `find_classes`.
    """
    del scratch
    sources = {split: _find(manual_dir, split) for split in SPLITS}
    notes = [f"no {split}.tar, so no split {split!r}" for split in sources if not sources[split]]
    sources = {split: source for split, source in sources.items() if source}
    if not sources:
        raise missing_files(
            manual_dir,
            "visda2017",
            [f"{split}.tar, or the folder {split} of it" for split in SPLITS],
            page="https://github.com/VisionLearningGroup/taskcv-2017-public/tree/master/"
            "classification",
        )
    listings = {split: source.scan() for split, source in sources.items()}
    folders = {  # a class is called train, too
        split: split if top_folders(listing, ".") == [split] else "."
        for split, listing in listings.items()
    }
    classes, files = {}, []
    for split, listing in listings.items():
        where, part = str(sources[split].path), inside(listing, folders[split])
        refuse_hidden_images(sources[split], part, where=where)
        files.append(kinds.sort_files(sources[split], part))
        kinds.refuse_unreadable(files[-1].unreadable, where=where, fix=kinds.OFFICIAL)
        classes[split] = find_classes(files[-1], listing, folders[split], where=where)
    notes += kinds.notes(files, expected=[_LIST])
    names = require_same(classes, where=str(manual_dir))
    splits = []
    for split, source in sources.items():
        split_entries = entries(classes[split], names, folders[split])
        _compare_with_list(source, listings[split], folders[split], split_entries, names)
        splits.append(SplitPlan(split, source, split_entries))
    if len(names) != _NUM_CLASSES:
        notes.append(f"{len(names)} classes, the official archives have {_NUM_CLASSES}")
    return Plan(
        name="visda2017",
        version=VERSION,
        splits=splits,
        class_names=names,
        description="VisDA-2017, classification: renderings to train, photographs to validate.",
        homepage="https://ai.bu.edu/visda-2017/",
        notes=notes,
    )


def _find(manual_dir: Path, split: str) -> Source | None:
    if (manual_dir / f"{split}.tar").is_file():
        return Tar(manual_dir / f"{split}.tar")
    return Folder(manual_dir / split) if (manual_dir / split).is_dir() else None


def _compare_with_list(
    source: Source,
    listing: Listing,
    folder: str,
    split_entries: Sequence[Entry],
    names: Sequence[str],
) -> None:
    """Where there is a list, `<class>/<image> <label>` a line, it must say what the folders say."""
    path = _LIST if folder == "." else f"{folder}/{_LIST}"
    member = next((member for member in listing.members if member.path == path), None)
    if member is None:
        return
    lines = read_text(source, member).splitlines()
    where, label_of = f"{source.path}: {path}", {entry.key: entry.label for entry in split_entries}
    for number, line in enumerate(filter(None, lines), start=1):
        image, _, label = line.strip().rpartition(" ")
        if image not in label_of:
            raise ValueError(f"{where}, line {number}: there is no image {image!r}")
        expected = label_of.pop(image)
        if label != str(expected):
            raise ValueError(
                f"{where}, line {number}: {image} has label {label!r}, and its folder "
                f"{names[expected]!r} is class {expected}: is it the list of other images?"
            )
    if label_of:
        raise ValueError(
            f"{where} has no label for {len(label_of)} images: {shorten(sorted(label_of))}; take "
            "the list and the images from one download"
        )
