"""Files that operating systems and programs leave among users' files."""

# Names of files and folders, in lower case, from Windows, macOS, Linux, network drives and editors.
_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "found.000"}
    | {"system volume information", "icon\r", "__macosx", ".ds_store", ".appledouble", ".trashes"}
    | {".trash", ".spotlight-v100", ".fseventsd", ".documentrevisions-v100", ".temporaryitems"}
    | {"lost+found", "lost.dir", ".thumbnails", ".directory", ".nomedia", ".cache", ".snapshot"}
    | {".snapshots", ".zfs", "@eadir", "@recycle", "@recently-snapshot", "@tmp"}
    | {"#recycle", "#snapshot", ".recycle", ".git", ".svn", ".hg", ".dvc", ".ipynb_checkpoints"}
)
# AppleDouble files; lock files of Office; the trash of a user.
_BEGINNINGS = ("._", "~$", ".trash-")


def is_litter(path: str) -> bool:
    """Whether a path, or a folder in it, is one that systems or programs leave behind."""
    return any(part in _NAMES or part.startswith(_BEGINNINGS) for part in path.lower().split("/"))


def is_hidden(path: str) -> bool:
    """Whether a path, or a folder in it, is hidden or litter."""
    return path.startswith(".") or "/." in path or is_litter(path)
