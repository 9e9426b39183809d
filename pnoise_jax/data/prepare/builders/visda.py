"""VisDA-2017 (classification) from its official tars, or the unpacked folders.

The papers use renderings with labels (``train``) as the source and photographs (``validation``) as
the target, without labels to train and with labels to test: ``data.train_split="validation"`` and
``data.test_split="validation"``. The metric is the mean of the accuracies of the 12 classes, which
are numbered alphabetically, like the columns of the papers' tables.
"""

from pathlib import Path

from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import kinds
from pnoise_jax.data.prepare.sources.archives import Tar
from pnoise_jax.data.prepare.sources.class_folders import (
    entries,
    find_classes,
    inside,
    refuse_hidden_images,
    require_same,
    top_folders,
)
from pnoise_jax.data.prepare.sources.list_files import find_entries, parse_list, unlisted
from pnoise_jax.data.prepare.sources.missing import missing_files
from pnoise_jax.data.prepare.sources.sources import Folder, Listing, Source, read_text

VERSION = "2.0.0"
NEW_IN_VERSION = "the order in which images are stored, as in the published lists"
SPLITS = ("train", "validation")

_NUM_CLASSES = 12
_LIST = "image_list.txt"


def plan(manual_dir: Path, *, scratch: Path) -> Plan:
    """Plans splits train (renderings) and validation (photographs), if they are there.

    Images are stored in the order of image_list.txt; without it, by class and name.

    Args:
      manual_dir: the directory of train.tar and validation.tar, or the folders they unpack to.
      scratch: not used.

    Raises:
      FileNotFoundError: both are missing.
      OSError: a tar is cut off or damaged.
      ValueError: splits differ in their classes; image_list.txt contradicts the folders; or see
        `find_classes`.
    """
    del scratch
    sources = _find_sources(manual_dir)
    notes = [f"no {split}.tar, so no split {split!r}" for split in SPLITS if split not in sources]
    listings = {split: source.scan() for split, source in sources.items()}
    folders = {  # "train" is also the name of a class
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
    splits = [
        _split(
            split,
            source,
            listings[split],
            folders[split],
            entries(classes[split], names, folders[split]),
            names,
        )
        for split, source in sources.items()
    ]
    notes += [
        f"no {_LIST} in {sources[split].path}, so images are in the order of classes and names"
        for split, listing in listings.items()
        if not any(member.path.endswith(_LIST) for member in listing.members)
    ]
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
        order="listed",
    )


def _find_sources(manual_dir: Path) -> dict[str, Source]:
    """The sources of the splits that are there; raises FileNotFoundError if none are."""
    candidates = {split: _find(manual_dir, split) for split in SPLITS}
    sources = {split: source for split, source in candidates.items() if source}
    if not sources:
        raise missing_files(
            manual_dir,
            "visda2017",
            [f"{split}.tar, or the folder {split} that it unpacks to" for split in SPLITS],
            page="https://github.com/VisionLearningGroup/taskcv-2017-public/tree/master/"
            "classification",
        )
    return sources


def _find(manual_dir: Path, split: str) -> Source | None:
    if (manual_dir / f"{split}.tar").is_file():
        return Tar(manual_dir / f"{split}.tar")
    return Folder(manual_dir / split) if (manual_dir / split).is_dir() else None


def _split(
    split: str,
    source: Source,
    listing: Listing,
    folder: str,
    by_folder: list[Entry],
    names: list[str],
) -> SplitPlan:
    """A split in the order of its list, if there is one; otherwise that of `by_folder`.

    Raises:
      ValueError: the list lacks an image, or contradicts the folders.
    """
    path = _LIST if folder == "." else f"{folder}/{_LIST}"
    member = next((member for member in listing.members if member.path == path), None)
    if member is None:
        return SplitPlan(split, source, by_folder)
    where = f"{source.path}: {path}"
    lines = parse_list(read_text(source, member), folder=split, where=where)
    images = Listing([entry.member for entry in by_folder], listing.folders)
    listed = find_entries(lines, names, source=source, listing=images, folder=folder, where=where)
    unlabelled = unlisted(images.members, listed)
    if unlabelled:
        raise ValueError(
            f"{where} has no label for {len(unlabelled)} images: {shorten(sorted(unlabelled))}; "
            "use a list and images from the same download"
        )
    return SplitPlan(split, source, listed)
