"""What the folders of a tree mean: classes, or splits with the classes below them."""

import dataclasses
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from pnoise_jax.data.prepare.plan import shorten
from pnoise_jax.data.prepare.sources.class_folders import top_folders
from pnoise_jax.data.prepare.sources.kinds import Files
from pnoise_jax.data.prepare.sources.sources import Listing
from pnoise_jax.terminal import printable

Layout = Literal["classes", "splits"]
LAYOUTS = ("classes", "splits")

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval)"
    r"([-_ ]?(set|split|data|images?|imgs?|[0-9]+))?",
    re.IGNORECASE,
)
# Such as trainA and testB; a class can have such a name as well, such as train_station.
_LIKE_SPLIT = re.compile(r"(?i:train|val|test|dev|eval)(?![a-z])")
_HOLDER = re.compile("(images?|imgs?|pictures?|pics?|photos?|frames?|data|all)", re.IGNORECASE)


@dataclasses.dataclass
class _Top:
    """A folder directly below the directory.

    Attributes:
      images: number of images that it contains, at any depth.
      direct: number of images directly in it.
      below: the names of the folders directly below it that contain images.
      is_deep: whether there are images in folders below those.
    """

    images: int = 0
    direct: int = 0
    below: set[str] = dataclasses.field(default_factory=set)
    is_deep: bool = False


def find_layout(files: Files, listing: Listing, manual_dir: Path) -> Layout:
    """What the folders directly below the directory are, if only one answer is possible.

    They are splits if all have names of splits, and have folders below them. They are classes if
    none has the name of a split, not all have names similar to one, and at least one directly
    contains images. A single class with folders below it, or with a name such as "images", may not
    be a class.

    Raises:
      ValueError: both are possible; the message says what the splits and classes would be either
        way.
    """
    tops = _tops(files, listing)
    if not tops or not files.images:
        return "classes"  # `find_classes` reports the missing classes or images
    called_splits = [name for name in tops if _SPLIT.fullmatch(name)]
    below = set().union(*(top.below for top in tops.values()))
    is_direct = any(top.direct for top in tops.values())
    if len(called_splits) == len(tops) and not all(map(_SPLIT.fullmatch, below)):
        if not _is_wrapper(below, any(top.is_deep for top in tops.values())):
            return "splits"
    elif not called_splits and not all(map(_LIKE_SPLIT.match, tops)):
        if is_direct and not _is_wrapper(tops, bool(below)):
            return "classes"
        if not is_direct and not below:  # all images are next to the folders
            return "classes"
    raise ValueError(_question(tops, sorted(below), manual_dir))


def _tops(files: Files, listing: Listing) -> dict[str, _Top]:
    tops = {name: _Top() for name in top_folders(listing, ".")}
    for member in files.images:
        name, *folders = member.path.split("/")[:-1] or [""]
        if name in tops:
            tops[name].images += 1
            tops[name].direct += not folders
            tops[name].below.update(folders[:1])
            tops[name].is_deep |= len(folders) > 1
    return tops


def _is_wrapper(names: Collection[str], has_folders: bool) -> bool:
    """Whether the only class may be a folder around classes, or around images without classes."""
    return len(names) == 1 and (has_folders or _HOLDER.fullmatch(next(iter(names))) is not None)


def _question(tops: dict[str, _Top], below: Sequence[str], manual_dir: Path) -> str:
    """The question whether folders are classes or splits, with the result of each answer."""
    classes = [
        f"{name} ({top.images} image{'s' * (top.images != 1)})" for name, top in tops.items()
    ]
    direct = [name for name, top in tops.items() if top.direct]
    if not below:
        splits = "impossible: there are no class folders in them"
    elif direct:
        splits = f"impossible: images without a class folder in {shorten(direct)}"
    else:
        splits = f"splits {shorten(list(tops))}, with classes {shorten(below)}"
    fix = "choose one"
    if len(tops) == 1:
        folder = printable(str(manual_dir / next(iter(tops))))
        fix += f", or the folder below, --manual_dir={folder}"
    elif direct and below:
        fix += ", or move away the folders whose images have no class"
    if _is_wrapper(below, any(top.is_deep for top in tops.values())):
        fix += f", or move the content of each folder {printable(below[0])} one level up"
    if empty := [name for name, top in tops.items() if not top.images]:
        fix += f", or move away the folders without images, {shorten(empty)}"
    return (
        f"{printable(str(manual_dir))}: are its folders classes or splits?\n"
        f"  --layout=classes: split train, with classes {shorten(classes)}\n"
        f"  --layout=splits: {splits}\n"
        f"Run the same command again, and {fix}."
    )


def deeper_folders(files: Files, folder: str) -> list[str]:
    """Folders below class folders, <class>/<folder>, whose images belong to the class."""
    prefix = "" if folder == "." else f"{folder}/"
    folders = set()
    for member in files.images:
        if member.path.startswith(prefix):
            parts = member.path[len(prefix) :].split("/")
            if len(parts) > 2:
                folders.add(f"{parts[0]}/{parts[1]}")
    return sorted(folders)
