"""What the folders of a tree stand for: classes, or splits with the classes below them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pnoise_jax.data.prepare.class_folders import top_folders
from pnoise_jax.data.prepare.kinds import Files
from pnoise_jax.data.prepare.plan import shorten
from pnoise_jax.data.prepare.sources import Listing
from pnoise_jax.terminal import printable

Layout = Literal["classes", "splits"]
LAYOUTS = ("classes", "splits")

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval)"
    r"([-_ ]?(set|split|data|images?|imgs?|[0-9]+))?",
    re.IGNORECASE,
)


def find_layout(files: Files, listing: Listing, manual_dir: Path) -> Layout:
    """What the folders directly below the directory are, where only one answer is possible.

    They are splits if all are called so, and have folders below them. They are classes if none is
    called so, and at least one holds images itself.

    Raises:
      ValueError: both are possible; says what the splits and classes would be either way.
    """
    tops = top_folders(listing, ".")
    if not tops or not files.images:
        return "classes"
    named = [name for name in tops if _SPLIT.fullmatch(name)]
    below = {name: _folders_with_images(files, name) for name in tops}
    if len(named) == len(tops) and any(below.values()):
        every = set().union(*below.values())
        if not all(_SPLIT.fullmatch(name) for name in every):
            return "splits"
    direct = {path.partition("/")[0] for path in _paths(files) if path.count("/") == 1}
    if not named and (direct & set(tops) or not any(below.values())):
        return "classes"
    raise ValueError(_both(files, tops, manual_dir))


def _both(files: Files, tops: Sequence[str], manual_dir: Path) -> str:
    """The question, with what each answer would make."""
    paths = _paths(files)
    counts = {name: sum(path.startswith(f"{name}/") for path in paths) for name in tops}
    classes = [f"{name} ({count} image{'s' * (count != 1)})" for name, count in counts.items()]
    below = sorted({name for top in tops for name in _folders_with_images(files, top)})
    without = [
        name
        for name in tops
        if any(path.startswith(f"{name}/") and path.count("/") == 1 for path in paths)
    ]
    if not below:
        splits = "impossible: there are no class folders in them"
    elif without:
        splits = f"impossible: images without a class folder in {shorten(without)}"
    else:
        splits = f"splits {shorten(tops)}, with classes {shorten(below)}"
    fix = "give the one that is meant"
    if len(tops) == 1:
        fix += f", or the folder below, --manual_dir={printable(str(manual_dir / tops[0]))}"
    elif without and below:
        fix += ", or move away the folder whose images have no class"
    return (
        f"{printable(str(manual_dir))}: are its folders classes or splits?\n"
        f"  --layout=classes: split train, with classes {shorten(classes)}\n"
        f"  --layout=splits: {splits}\n"
        f"Run the same command again, and {fix}."
    )


def mixed_levels(files: Files, folder: str) -> list[str]:
    """Folders below class folders whose images become the class's, <class>/<folder>."""
    prefix = "" if folder == "." else f"{folder}/"
    paths = [path[len(prefix) :] for path in _paths(files) if path.startswith(prefix)]
    return sorted({"/".join(path.split("/")[:2]) for path in paths if path.count("/") > 1})


def _folders_with_images(files: Files, top: str) -> set[str]:
    """The names of the folders directly below one that hold images, at any depth."""
    parts = (path.split("/") for path in _paths(files) if path.startswith(f"{top}/"))
    return {part[1] for part in parts if len(part) > 2}


def _paths(files: Files) -> list[str]:
    return [member.path for member in files.images]
