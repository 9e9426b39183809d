"""Users' own images, in one folder per class (the layout of torchvision's ImageFolder)."""

import re
from collections.abc import Sequence
from pathlib import Path

from pnoise_jax.data.prepare.plan import Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import kinds
from pnoise_jax.data.prepare.sources.class_folders import (
    entries,
    find_classes,
    natural_order,
    refuse_alike,
    refuse_hidden_images,
    require_same,
    top_folders,
)
from pnoise_jax.data.prepare.sources.kinds import Files
from pnoise_jax.data.prepare.sources.layout import Layout, deeper_folders, find_layout
from pnoise_jax.data.prepare.sources.sources import Folder, Listing
from pnoise_jax.terminal import printable

VERSION = "1.0.0"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def plan(
    manual_dir: Path,
    *,
    name: str,
    scratch: Path,
    layout: Layout | None = None,
    skip_unreadable: bool = False,
) -> Plan:
    """Splits from ``<split>/<class>/**``, or one split "train" from ``<class>/**``.

    Args:
      manual_dir: the directory of the images.
      name: "folder/<name>".
      scratch: the staging directory; must not be in `manual_dir`.
      layout: what the folders are: "classes" or "splits"; None detects it, see `find_layout`.
      skip_unreadable: leave out files in formats that cannot be read, instead of refusing them.

    Raises:
      ValueError: the data directory is among the images; it is not clear what the folders are;
        splits differ in their classes; files are in formats that cannot be read; or see
        `find_classes`.
    """
    if scratch.is_relative_to(manual_dir):
        raise ValueError(
            f"--data_dir={scratch.parent} is in --manual_dir={manual_dir}, among the images: "
            "choose another directory"
        )
    source, where = Folder(manual_dir), printable(str(manual_dir))
    listing = source.scan()
    refuse_hidden_images(source, listing, where=where)
    files = kinds.sort_files(source, listing)
    layout = layout or find_layout(files, listing, manual_dir)
    folders = _split_folders(listing, layout)
    refuse_alike(where, list(folders), kind="split")
    _require_labels(files, folders, where)
    if not skip_unreadable:
        kinds.refuse_unreadable(
            [member for member in files.unreadable if "/" in member.path],
            where=where,
            fix="convert them to PNG or JPEG, or leave them out with --skip_unreadable",
        )
    classes = {
        split: find_classes(files, listing, folder, where=where)
        for split, folder in folders.items()
    }
    by_code_points = require_same(classes, where=where)
    names = natural_order(by_code_points)
    return Plan(
        name=name,
        version=VERSION,
        splits=[
            SplitPlan(split, source, entries(classes[split], names, folder))
            for split, folder in folders.items()
        ],
        class_names=names,
        description="Images from class folders.",
        notes=[*_order_notes(names, by_code_points), *_notes(files, listing, folders)],
        class_order="natural",
        layout=layout,
    )


def check_name(name: str) -> None:
    """Raises ValueError unless a name is folder/<name>, and stays in that folder."""
    short_name = name.partition("/")[2]
    if not _NAME.fullmatch(short_name) or re.fullmatch(r"\d+\.\d+\.\d+", short_name):
        raise ValueError(
            f"--dataset={name!r}: use folder/<name>, with letters, digits, '_', '-' and '.' in the "
            "name, which must not look like a version: for example folder/pets"
        )


def _order_notes(names: Sequence[str], by_code_points: Sequence[str]) -> list[str]:
    if names == by_code_points:
        return []
    first = next(i for i, name in enumerate(names) if name != by_code_points[i])
    return [
        f"classes are numbered in natural order: {shorten(names, limit=12)}; label {first} is "
        f"{names[first]!r}, but {by_code_points[first]!r} in torchvision's ImageFolder"
    ]


def _notes(files: Files, listing: Listing, folders: dict[str, str]) -> list[str]:
    notes = kinds.notes([files])
    if files.unreadable:
        paths = [member.path for member in files.unreadable]
        notes.append(f"left out {len(paths)} files that cannot be read here: {shorten(paths)}")
    if listing.litter:
        notes.append(f"left out system folders: {shorten(listing.litter)}")
    deeper = [path for folder in folders.values() for path in deeper_folders(files, folder)]
    if deeper:
        notes.append(
            "images in folders below a class folder belong to that class: "
            f"{shorten(list(dict.fromkeys(deeper)), limit=5)}"
        )
    return notes


def _split_folders(listing: Listing, layout: Layout) -> dict[str, str]:
    """The folder of each split."""
    if layout == "classes":
        return {"train": "."}
    folders = {name: name for name in top_folders(listing, ".")}
    for name in folders:
        if not re.fullmatch(r"\w+", name) or name == "all":
            raise ValueError(
                f"the folder {name!r} would be a split of that name, but the name of a split must "
                "have only letters, digits and '_', and not be 'all': rename the folder"
            )
    return folders


def _require_labels(files: Files, folders: dict[str, str], where: str) -> None:
    loose = [member.path for member in files.images if "/" not in member.path]
    if loose and folders != {"train": "."}:
        raise ValueError(
            f"{where} has images without a label, next to its splits {shorten(list(folders))}: "
            f"{shorten(loose)}; move them into a class folder"
        )
