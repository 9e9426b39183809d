"""Finds the files that a user has downloaded; if they are missing, says what to do."""

import os
from collections.abc import Sequence
from pathlib import Path

from pnoise_jax.terminal import printable


def existing_directory(name: str, manual_dir: str | os.PathLike | None) -> Path:
    """The directory of the downloads.

    Raises:
      ValueError: no directory is given.
      FileNotFoundError, NotADirectoryError: it does not exist, or is a file.
    """
    if manual_dir is None or not os.fspath(manual_dir):
        raise ValueError(
            f"--manual_dir is not set: give the directory of the files that {name} is made from; "
            "if it is empty, the next message says what to download"
        )
    directory = Path(manual_dir).expanduser().absolute()
    if not directory.exists():
        raise FileNotFoundError(
            f"--manual_dir={directory} does not exist: give the directory of the downloads, or of "
            "your images"
        )
    if not directory.is_dir():
        raise NotADirectoryError(
            f"--manual_dir={directory} is a file: set it to the directory that contains it"
        )
    return directory


def missing_files(
    manual_dir: Path, name: str, wanted: Sequence[str], *, page: str, how: str = ""
) -> FileNotFoundError:
    """An error that says what to download, from where and to where, and what is there.

    Args:
      manual_dir: the directory in which the files should be.
      name: the data set.
      wanted: for each file, its name and possible replacements.
      page: the page from which to download them.
      how: what to do or choose on that page.
    """
    there = sorted(path.name for path in manual_dir.iterdir())
    listed = ", ".join(map(printable, there[:10]))
    lines = "\n".join(f"  {file}" for file in wanted)
    return FileNotFoundError(
        f"--manual_dir={manual_dir} does not contain the files that {name} is made from:\n{lines}\n"
        f"Download them from {page}{f' ({how})' if how else ''} and put them there.\n"
        f"Found there: {listed or 'nothing'}"
    )
