"""Lets Orbax work in directories whose names look like glob patterns, such as "[a-z]"."""

import glob
import os
from collections.abc import Iterator

from etils import epath

_Path = type(epath.Path())


def take_paths_literally() -> None:
    """Makes `glob` of etils' local paths, like pathlib's, take the directory's name literally.

    Orbax uses `glob` to merge the files of its processes. In a directory "[a-z]" it would find
    nothing, and publish checkpoints without arrays; in "run?" it would find other runs' files.
    """
    if not hasattr(_Path.glob, "is_literal"):
        _Path.glob = _literally(_Path.glob)


def _literally(search):
    def search_literally(self: epath.Path, pattern: str) -> Iterator[epath.Path]:
        text = os.fspath(self)
        if "://" not in text and glob.has_magic(text):
            self = type(self)(glob.escape(text))
        return search(self, pattern)

    search_literally.is_literal = True
    return search_literally
