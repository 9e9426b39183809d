"""Images in class folders, checked: no image without a class, no class without images."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pnoise_jax.data.prepare.plan import Entry, shorten
from pnoise_jax.data.prepare.sources import Listing, Member

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
# What systems and programs leave about, in lower case; and whatever begins with "._".
_LITTER = frozenset(
    {"thumbs.db", "desktop.ini", "__macosx", ".ds_store", ".git", ".svn", ".ipynb_checkpoints"}
    | {".thumbnails", ".trashes", ".spotlight-v100", ".fseventsd", ".appledouble", "@eadir"}
)

ClassFolders = Mapping[str, Sequence[Member]]


def is_image(path: str) -> bool:
    """Whether a file's name says that it is an image."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, is hidden or what a system leaves about."""
    return is_litter(path) or any(part.startswith(".") for part in path.split("/"))


def is_litter(path: str) -> bool:
    """Whether a file, or a folder that it is in, is what a system leaves about."""
    return any(part.lower() in _LITTER or part.startswith("._") for part in path.split("/"))


def refuse_hidden_images(listing: Listing, *, where: str) -> None:
    """Raises ValueError where hidden folders or files are images: to be skipped, or a class?"""
    hidden = [
        member.path
        for member in listing.members
        if is_image(member.path) and is_hidden(member.path) and not is_litter(member.path)
    ]
    fix = "rename what begins with a dot, or take it away"
    _refuse(where, "images in hidden files or folders", hidden, fix)


def inside(listing: Listing, folder: str) -> Listing:
    """What lies below one folder, ".", as before, for all."""
    if folder == ".":
        return listing
    return Listing(
        [member for member in listing.members if member.path.startswith(f"{folder}/")],
        frozenset(path for path in listing.folders if path.startswith(f"{folder}/")),
    )


def top_folders(listing: Listing, folder: str) -> list[str]:
    """The names of the folders directly below one."""
    below = 0 if folder == "." else folder.count("/") + 1
    found = {path.split("/")[below] for path in inside(listing, folder).folders}
    return sorted(name for name in found if not is_hidden(name))


def find_classes(
    listing: Listing, folder: str, *, where: str, other_files: Sequence[str] = ()
) -> ClassFolders:
    """The images of ``<folder>/<class>/**``, by class, sorted.

    Args:
      listing: what the source holds.
      folder: its path there, "." for all.
      where: how messages name it.
      other_files: suffixes of files that may stand among the images.

    Raises:
      ValueError: there is no class folder; one has no images, or a file that is none; an image
        lies in none, or is hidden; two names differ in case only; or a file's name is not UTF-8.
    """
    classes: dict[str, list[Member]] = {name: [] for name in top_folders(listing, folder)}
    depth = 0 if folder == "." else folder.count("/") + 1
    strangers, unlabelled = [], []
    for member in inside(listing, folder).members:
        parts = member.path.split("/")[depth:]
        if is_hidden("/".join(parts)):
            continue
        if len(parts) == 1:
            unlabelled += [member.path] * is_image(member.path)
        elif is_image(member.path):
            classes[parts[0]].append(member)
        elif not member.path.endswith(tuple(other_files)):
            strangers.append(member.path)
    refuse_hidden_images(inside(listing, folder), where=where)
    if not classes:
        raise ValueError(f"{where} has no class folders, {folder}/<class>/<image>")
    names = [member.path for members in classes.values() for member in members]
    _refuse(where, "file names that are not UTF-8", _not_utf8(names), "rename them")
    _refuse(where, "files in class folders that are no images", strangers, "take them away")
    _refuse(where, "images without a label, in no class folder", unlabelled, "move them into one")
    empty = [name for name, members in classes.items() if not members]
    _refuse(where, "class folders without images", empty, "fill them or take them away")
    _refuse_same_but_case(where, list(classes))
    return classes


def require_same(by_split: Mapping[str, ClassFolders], *, where: str) -> list[str]:
    """The classes, which all splits must have.

    Raises:
      ValueError: they differ; says which split has or lacks which.
    """
    every = sorted({name for classes in by_split.values() for name in classes})
    lacking = {
        split: [name for name in every if name not in classes]
        for split, classes in by_split.items()
    }
    problems = [f"{split} has no {shorten(names)}" for split, names in lacking.items() if names]
    if problems:
        raise ValueError(
            f"{where}: the class folders differ: {'; '.join(problems)}. A label would mean "
            "one class here and another there: let all have the same folders."
        )
    return every


def entries(classes: ClassFolders, names: Sequence[str], folder: str) -> list[Entry]:
    """One for each image; its key is the path below the folder."""
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
    return [ascii(name) for name in names if any("\ud800" <= c <= "\udfff" for c in name)]


def _refuse_same_but_case(where: str, names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(
                f"{where} has class folders {other!r} and {name!r}, which differ in case only: "
                "one class or two? Join or rename them."
            )
