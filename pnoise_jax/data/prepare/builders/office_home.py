"""Office-Home from its official zip, or the unpacked folder: one split for each domain.

The papers use all images of the source domain with labels, all images of the target domain without,
and test on the same target images: ``data.train_split="clipart"`` and
``data.test_split="clipart"``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pnoise_jax.data.prepare.plan import Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import kinds
from pnoise_jax.data.prepare.sources.archives import Zip
from pnoise_jax.data.prepare.sources.class_folders import (
    ClassFolders,
    entries,
    find_classes,
    inside,
    refuse_hidden_images,
    require_same,
    top_folders,
)
from pnoise_jax.data.prepare.sources.list_files import (
    Line,
    are_alike,
    class_names,
    find_entries,
    parse_list,
    read_list,
)
from pnoise_jax.data.prepare.sources.missing import missing_files
from pnoise_jax.data.prepare.sources.sources import Folder, Listing, Source
from pnoise_jax.terminal import printable

VERSION = "2.0.0"
NEW_IN_VERSION = "labels, and the order in which images are stored, as in the published lists"

_ROOT = "OfficeHomeDataset_10072016"
_DOMAINS = ("art", "clipart", "product", "real_world")
# In the order of the published lists, which is not alphabetical, so that labels agree with those of
# heads that others have trained on these lists.
_IN_ORDER = (
    "Drill Exit_Sign Bottle Glasses Computer File_Cabinet Shelf Toys Sink Laptop Kettle Folder "
    "Keyboard Flipflops Pencil Bed Hammer ToothBrush Couch Bike Postit_Notes Mug Webcam Desk_Lamp "
    "Telephone Helmet Mouse Pen Monitor Mop Sneakers Notebook Backpack Alarm_Clock Push_Pin "
    "Paper_Clip Batteries Radio Fan Ruler Pan Screwdriver Trash_Can Printer Speaker Eraser Bucket "
    "Chair Calendar Calculator Flowers Lamp_Shade Spoon Candles Clipboards Scissors TV Curtains "
    "Fork Soda Table Knives Oven Refrigerator Marker"
)
CLASSES = tuple(_IN_ORDER.split())


def plan(manual_dir: Path, *, scratch: Path) -> Plan:
    """Plans splits art, clipart, product and real_world, with the same classes.

    With the published lists (`Art.txt`, `Clipart.txt`, `Product.txt`, `Real_World.txt`), labels and
    order are theirs. Without them, classes are in the order of the lists, and the images of a class
    are in the order of their names.

    Args:
      manual_dir: the directory of OfficeHomeDataset_10072016.zip or of the folder of that name, or
        that folder itself; optionally with the lists, there or in the folder.
      scratch: not used.

    Raises:
      FileNotFoundError: the data set, a domain, or some of the lists are missing.
      OSError: the zip is cut off or damaged.
      ValueError: domains differ in their classes; lists and images do not agree, see `list_files`;
        or see `find_classes`.
    """
    del scratch
    source = _find(manual_dir)
    listing = source.scan()
    folders = _domain_folders(source, listing)
    classes, files = {}, []
    for domain, folder in folders.items():
        where, part = f"{source.path}: {printable(folder)}", inside(listing, folder)
        refuse_hidden_images(source, part, where=where)
        files.append(kinds.sort_files(source, part))
        kinds.refuse_unreadable(files[-1].unreadable, where=where, fix=kinds.OFFICIAL)
        classes[domain] = find_classes(files[-1], listing, folder, where=where)
    known = require_same(classes, where=str(source.path))
    lists = _find_lists([manual_dir, *([source.path] if isinstance(source, Folder) else [])])
    if lists:
        splits, names, notes = _by_lists(source, listing, folders, classes, lists)
    else:
        splits, names, notes = _by_folders(source, folders, classes, known)
    return Plan(
        name="office_home",
        version=VERSION,
        splits=splits,
        class_names=names,
        description="Office-Home: a split for each domain, the same classes in all.",
        homepage="https://www.hemanthdv.org/officeHomeDataset.html",
        notes=[
            *kinds.notes(files),
            *notes,
            *[f"{len(names)} classes, the official archive has {len(CLASSES)}"]
            * (len(names) != len(CLASSES)),
        ],
        class_order="published",
        order="listed",
    )


def _by_folders(
    source: Source,
    folders: Mapping[str, str],
    classes: Mapping[str, ClassFolders],
    known: Sequence[str],
) -> tuple[list[SplitPlan], list[str], list[str]]:
    """Splits, names of classes, and notes, without lists."""
    place = {name: i for i, name in enumerate(CLASSES)}
    names = sorted(known, key=lambda name: (place.get(name, len(CLASSES)), name))
    splits = [
        SplitPlan(domain, source, entries(classes[domain], names, folder))
        for domain, folder in folders.items()
    ]
    note = (
        "no lists (Art.txt and so on), so the images of a class are in the order of their names; "
        "the published lists have a different order"
    )
    return splits, names, [note]


def _by_lists(
    source: Source,
    listing: Listing,
    folders: Mapping[str, str],
    classes: Mapping[str, ClassFolders],
    lists: Mapping[str, Path],
) -> tuple[list[SplitPlan], list[str], list[str]]:
    """Splits, names of classes, and notes, according to the lists."""
    lines: dict[str, list[Line]] = {}
    for domain, folder in folders.items():
        name, path = folder.rpartition("/")[2], lists[domain]
        lines[domain] = parse_list(read_list(path), folder=name, where=str(path))
    names = class_names({str(lists[domain]): lines[domain] for domain in folders})
    splits, notes = [], []
    for domain, folder in folders.items():
        listed = find_entries(
            lines[domain],
            names,
            source=source,
            listing=inside(listing, folder),
            folder=folder,
            where=str(lists[domain]),
        )
        splits.append(SplitPlan(domain, source, listed))
        left_out = sum(map(len, classes[domain].values())) - len(listed)
        if left_out:
            notes.append(f"left out {left_out} images of {domain} that are not in its list")
    return splits, names, notes


def _find_lists(directories: Sequence[Path]) -> dict[str, Path]:
    """The list of each domain; empty if there are no lists.

    Raises:
      FileNotFoundError: some of the lists are missing.
    """
    candidates = [path for directory in directories for path in sorted(directory.glob("*.txt"))]
    lists = {}
    for domain in _DOMAINS:
        path = next((path for path in candidates if are_alike(path.stem, domain)), None)
        if path is not None:
            lists[domain] = path
    missing = [domain for domain in _DOMAINS if domain not in lists]
    if lists and missing:
        raise FileNotFoundError(
            f"{shorten([str(path) for path in lists.values()])} would define the labels, but there "
            f"are no lists of {', '.join(missing)}: add them, or remove all lists"
        )
    return lists


def _find(manual_dir: Path) -> Source:
    if (manual_dir / f"{_ROOT}.zip").is_file():
        return Zip(manual_dir / f"{_ROOT}.zip")
    for directory in (manual_dir / _ROOT, manual_dir):
        if (directory / "Art").is_dir():
            return Folder(directory)
    raise missing_files(
        manual_dir,
        "office_home",
        [f"{_ROOT}.zip  (1.1 GiB), or the folder {_ROOT} that it unpacks to"],
        page="https://www.hemanthdv.org/officeHomeDataset.html",
    )


def _domain_folders(source: Source, listing: Listing) -> dict[str, str]:
    """The folder of each domain; mirrors spell `Real World` in more than one way."""
    root = _ROOT if _ROOT in listing.folders else "."
    names = top_folders(listing, root)
    prefix = "" if root == "." else f"{root}/"
    folders = {
        domain: next((prefix + name for name in names if are_alike(name, domain)), None)
        for domain in _DOMAINS
    }
    missing = [domain for domain, folder in folders.items() if folder is None]
    if missing:
        raise FileNotFoundError(
            f"{source.path} lacks the domains {', '.join(missing)}: its folders are "
            f"{shorten(names) or 'none'}, but Art, Clipart, Product and Real World are needed"
        )
    return {domain: folder for domain, folder in folders.items() if folder is not None}
