"""What systems and programs leave among people's files."""

import re

# Names of files and folders, in lower case. Windows, macOS, Linux, network drives, editors.
_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "found.000"}
    | {"system volume information", "icon\r", "__macosx", ".ds_store", ".appledouble", ".trashes"}
    | {".spotlight-v100", ".fseventsd", ".documentrevisions-v100", ".temporaryitems"}
    | {"lost+found", "lost.dir", ".thumbnails", ".directory", ".nomedia", ".cache", ".snapshot"}
    | {".snapshots", ".zfs", "@eadir", "@recycle", "@recently-snapshot", "@tmp"}
    | {"#recycle", "#snapshot", ".recycle", ".git", ".svn", ".hg", ".dvc", ".ipynb_checkpoints"}
)
# AppleDouble files; the trash of a user; files that Office has open.
_PATTERN = re.compile(r"\._.*|\.trash(-.*)?|~\$.*", re.DOTALL)


def is_litter(path: str) -> bool:
    """Whether a file, or a folder that it is in, is what a system leaves about."""
    return any(_is_litter_name(part) for part in path.split("/"))


def _is_litter_name(name: str) -> bool:
    lower = name.lower()
    return lower in _NAMES or _PATTERN.fullmatch(lower) is not None


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, is hidden or what a system leaves about."""
    return is_litter(path) or any(part.startswith(".") for part in path.split("/"))
