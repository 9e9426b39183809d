"""Images in class folders, with checks that each has a class, and each class has images."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal

from pnoise_jax.counting import counted
from pnoise_jax.data.class_names import NUMBER
from pnoise_jax.data.prepare.plan import Entry, shorten
from pnoise_jax.data.prepare.sources.kinds import Files, only_images
from pnoise_jax.data.prepare.sources.litter import is_hidden, is_litter
from pnoise_jax.data.prepare.sources.sources import Listing, Member, Source
from pnoise_jax.terminal import printable

ClassFolders = Mapping[str, Sequence[Member]]

_JOINERS = "\u200c\u200d"  # in emoji, and in Persian and Indic words
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # select variants of a character
# Invisible, although Unicode counts them as letters, marks and symbols.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"


def refuse_hidden_images(source: Source, listing: Listing, *, where: str) -> None:
    """Raises ValueError if hidden files, or files in hidden folders, are images.

    It is not clear whether such images should be skipped or belong to a class.
    """
    hidden = [
        member
        for member in listing.members
        if "/." in f"/{member.path}" and not is_litter(member.path)
    ]
    paths = [member.path for member in only_images(source, hidden)]
    fix = "rename files and folders that begin with a dot, or remove them"
    _refuse(where, "images in hidden files or folders", paths, fix)


def inside(listing: Listing, folder: str) -> Listing:
    """The part of a listing below one folder; "." for all of it."""
    if folder == ".":
        return listing
    return Listing(
        [member for member in listing.members if member.path.startswith(f"{folder}/")],
        frozenset(path for path in listing.folders if path.startswith(f"{folder}/")),
    )


def top_folders(listing: Listing, folder: str) -> list[str]:
    """The names of the visible folders directly below one."""
    below = 0 if folder == "." else folder.count("/") + 1
    names = {path.split("/")[below] for path in inside(listing, folder).folders}
    return sorted(name for name in names if not is_hidden(name))


def find_classes(files: Files, listing: Listing, folder: str, *, where: str) -> ClassFolders:
    """The images of ``<folder>/<class>/**`` by class; both are sorted by name.

    Names of classes are in Unicode's composed form (NFC), because macOS decomposes file names.

    Args:
      files: the files of the listing, or of this folder of it.
      listing: the listing of the source.
      folder: the path of the folder in the source; "." for all.
      where: how messages refer to it.

    Raises:
      ValueError: there is no class folder; a class folder has no images, or a name that cannot be
        stored or looks like another one; an image is in no class folder; or a file name is not
        UTF-8.
    """
    classes: dict[str, list[Member]] = {name: [] for name in top_folders(listing, folder)}
    depth = 0 if folder == "." else folder.count("/") + 1
    prefix = "" if folder == "." else f"{folder}/"
    unlabelled = []
    # An archive lists its members in any order.
    for member in sorted(files.images, key=lambda member: member.path.split("/")):
        if not member.path.startswith(prefix):
            continue
        parts = member.path.split("/")[depth:]
        if len(parts) == 1:
            unlabelled.append(member.path)
        else:
            classes[parts[0]].append(member)
    if not classes:
        fix = "move it away, or choose --layout=classes if the folders are classes"
        if folder == ".":
            fix = "put the images of each class into a folder of their own"
        number = counted(len(unlabelled), "image")
        fix = f": it has {number} without a class: {fix}" if unlabelled else ""
        raise ValueError(f"{where} has no class folders, {printable(folder)}/<class>/<image>{fix}")
    names = [*classes, *(member.path for members in classes.values() for member in members)]
    _refuse(where, "file names that are not UTF-8", _not_utf8(names), "rename them")
    _refuse(where, "images without a label, in no class folder", unlabelled, "move them into one")
    empty = [name for name, members in classes.items() if not members]
    _refuse(where, "class folders without images", empty, "fill them or remove them")
    _refuse_odd_names(where, list(classes))
    refuse_alike(where, list(classes), kind="class")
    return {
        unicodedata.normalize("NFC", name): folder_of_class
        for name, folder_of_class in classes.items()
    }


def require_same(by_split: Mapping[str, ClassFolders], *, where: str) -> list[str]:
    """The classes, which must be the same in all splits, ordered by code points.

    Raises:
      ValueError: they differ; the message says which split lacks which classes.
    """
    every = sorted({name for classes in by_split.values() for name in classes})
    lacking = {
        split: [name for name in every if name not in classes]
        for split, classes in by_split.items()
    }
    problems = [f"{split} has no {shorten(names)}" for split, names in lacking.items() if names]
    if problems:
        alike = _alike(every)
        hint = f" ({alike[0]!a} and {alike[1]!a} differ only in {alike[2]})" if alike else ""
        raise ValueError(
            f"{where}: the class folders differ: {'; '.join(problems)}{hint}. A label would mean "
            "different classes in different splits: give all splits the same folders."
        )
    return every


def natural_order(names: Sequence[str]) -> list[str]:
    """Names ordered by the numbers in them: img2 before img10, -1 before 0.

    Letters are ordered by code points, capitals first, as in torchvision's ImageFolder.
    """
    if all(NUMBER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (Decimal(name), name))
    return sorted(names, key=_natural_key)


def _natural_key(name: str) -> tuple:
    # Numbers sort where their digits would, between "/" and ":"; no other character does.
    parts = re.findall(r"[0-9]+|[^0-9]", name)
    return [(ord("0"), int(x)) if x[0] in "0123456789" else (ord(x), 0) for x in parts], name


def entries(classes: ClassFolders, names: Sequence[str], folder: str) -> list[Entry]:
    """One entry per image; its key is the path below the folder."""
    cut = 0 if folder == "." else len(folder) + 1
    return [
        Entry(member.path[cut:], label, member)
        for label, name in enumerate(names)
        for member in classes[name]
    ]


def _refuse(where: str, what: str, names: Sequence[str], fix: str) -> None:
    if names:
        raise ValueError(f"{where} has {len(names)} {what}: {shorten(names)}; {fix}")


def _not_utf8(names: Sequence[str]) -> list[str]:
    # Python keeps bytes that it cannot decode as lone surrogates, which nothing can print.
    odd = (name for name in names if not name.isascii())
    return [ascii(name) for name in odd if any("\ud800" <= c <= "\udfff" for c in name)]


def _refuse_odd_names(where: str, names: Sequence[str]) -> None:
    """Refuses names that a list with one name per line cannot store, or that look like others."""
    odd = [ascii(name) for name in names if name != name.strip() or any(map(_is_invisible, name))]
    _refuse(
        where,
        "class folders whose names begin or end with a blank, or contain line breaks, control "
        "characters or invisible characters",
        odd,
        "rename them",
    )


def _is_invisible(character: str) -> bool:
    category = unicodedata.category(character)
    shows_nothing = category in ("Cc", "Cf", "Zl", "Zp") or character in _FILLERS
    return shows_nothing and character not in _JOINERS


def refuse_alike(where: str, names: Sequence[str], *, kind: str) -> None:
    """Raises ValueError if the names of two classes or splits (`kind`) look the same."""
    if alike := _alike(names):
        one, other, differ = alike
        raise ValueError(
            f"{where} has {kind} folders {one!a} and {other!a}, which differ only in {differ}: one "
            f"{kind} or two? Merge or rename them."
        )


def _alike(names: Sequence[str]) -> tuple[str, str, str] | None:
    """Two names that look the same, and how they differ; None if there are none."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_look(name), name)
        if other != name:
            one, two = (unicodedata.normalize("NFC", x) for x in (other, name))
            differ = (
                "case" if one.casefold() == two.casefold() else "blanks or invisible characters"
            )
            return other, name, "Unicode form" if one == two else differ
    return None


def _look(name: str) -> str:
    """A name in the form in which a reader sees it, without case."""
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf" and c not in _FILLERS)
    visible = _SELECTORS.sub("", visible)
    folded = unicodedata.normalize("NFC", visible).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())
