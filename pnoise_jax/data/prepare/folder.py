"""People's own images, in one folder for each class (the layout of torchvision's ImageFolder)."""

import re
from pathlib import Path

from pnoise_jax.data.prepare.class_folders import (
    entries,
    find_classes,
    is_hidden,
    is_image,
    refuse_hidden_images,
    require_same,
    top_folders,
)
from pnoise_jax.data.prepare.plan import Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import Folder, Listing

VERSION = "1.0.0"

_SPLITS = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"}
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def plan(manual_dir: Path, *, name: str, scratch: Path) -> Plan:
    """Splits from ``<split>/<class>/**``, or one split "train" from ``<class>/**``.

    Folders called train, val, test and the like are splits; so are others, if all of them hold
    folders only.

    Args:
      manual_dir: where they are.
      name: "folder/<name>".
      scratch: must not lie in `manual_dir`.

    Raises:
      ValueError: the data directory lies among the images; splits differ in their
        classes; or see `find_classes`.
    """
    if scratch.is_relative_to(manual_dir):
        raise ValueError(
            f"--data_dir={scratch.parent} lies in --manual_dir={manual_dir}, among the images: "
            "choose another"
        )
    source = Folder(manual_dir)
    listing = source.scan()
    refuse_hidden_images(listing, where=str(manual_dir))
    folders = _split_folders(listing)
    _require_labels(listing, folders, manual_dir)
    for split in folders:
        if not re.fullmatch(r"\w+", split) or split == "all":
            raise ValueError(
                f"{manual_dir / split} would be a split of that name, and a split's name has "
                "letters, digits and '_' only, and is not 'all': rename the folder"
            )
    classes = {
        split: find_classes(listing, folder, where=str(manual_dir))
        for split, folder in folders.items()
    }
    names = require_same(classes, where=str(manual_dir))
    return Plan(
        name=name,
        version=VERSION,
        splits=[
            SplitPlan(split, source, entries(classes[split], names, folder))
            for split, folder in folders.items()
        ],
        class_names=names,
        description="Images from class folders.",
        notes=_notes(listing, folders),
    )


def check_name(name: str) -> None:
    """Raises ValueError unless it is folder/<name> and leads nowhere else."""
    own = name.partition("/")[2]
    if not _NAME.fullmatch(own) or re.fullmatch(r"\d+\.\d+\.\d+", own):
        raise ValueError(
            f"--dataset={name!r}: use folder/<name>, a name of letters, digits, '_', '-' and '.' "
            "that is no version, such as folder/pets"
        )


def _notes(listing: Listing, folders: dict[str, str]) -> list[str]:
    notes, names = [], list(folders)
    if not any(name.lower() in _SPLITS for name in names):
        notes.append(
            f"read as splits, as they hold only folders: {', '.join(names)}; if these are classes, "
            "put them into a folder 'train'"
        )
    loose = [m.path for m in listing.members if "/" not in m.path and not is_hidden(m.path)]
    if loose:
        notes.append(f"left out, in no class folder: {shorten(loose)}")
    return notes


def _split_folders(listing: Listing) -> dict[str, str]:
    tops = top_folders(listing, ".")
    with_files = {
        path.partition("/")[0]
        for path in (member.path for member in listing.members)
        if path.count("/") == 1 and not is_hidden(path)
    }
    splits = any(name.lower() in _SPLITS for name in tops) or (tops and not with_files & {*tops})
    # One empty folder more, and nothing below any: then they are classes, and find_classes says so.
    nested = any(path.count("/") == 1 for path in listing.folders if not is_hidden(path))
    return {name: name for name in tops} if splits and nested else {"train": "."}


def _require_labels(listing: Listing, folders: dict[str, str], manual_dir: Path) -> None:
    loose = [m.path for m in listing.members if "/" not in m.path and is_image(m.path)]
    if loose and folders != {"train": "."}:
        raise ValueError(
            f"{manual_dir} has images without a label, beside its splits {', '.join(folders)}: "
            f"{', '.join(loose[:10])}; move them into a class folder"
        )
