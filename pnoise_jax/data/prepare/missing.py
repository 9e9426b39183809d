"""Finding the files that a user had to download, and saying what to do where they are not there."""

import os
from collections.abc import Sequence
from pathlib import Path

from pnoise_jax.terminal import printable


def existing_directory(name: str, manual_dir: str | os.PathLike | None) -> Path:
    """The directory of the downloads.

    Raises:
      ValueError: none is given.
      FileNotFoundError, NotADirectoryError: it is not there, or is a file.
    """
    if manual_dir is None or not os.fspath(manual_dir):
        raise ValueError(
            f"--manual_dir is not set: give the directory of the files that {name} is made from; "
            "if it is empty, you are told what to download"
        )
    directory = Path(manual_dir).expanduser().absolute()
    if not directory.exists():
        raise FileNotFoundError(
            f"--manual_dir={directory} does not exist: set it to the directory of the downloads"
        )
    if not directory.is_dir():
        raise NotADirectoryError(
            f"--manual_dir={directory} is a file: set it to the directory that it lies in"
        )
    return directory


def missing_files(
    manual_dir: Path, name: str, wanted: Sequence[str], *, page: str, how: str = ""
) -> FileNotFoundError:
    """The error that lists what to download, from where, to where, and what is there.

    Args:
      manual_dir: where they should be.
      name: the data set.
      wanted: for each file what it is called, and what else would do.
      page: where they are given out.
      how: what the page asks for.
    """
    there = sorted(path.name for path in manual_dir.iterdir())
    listed = ", ".join(map(printable, there[:10]))
    lines = "\n".join(f"  {file}" for file in wanted)
    return FileNotFoundError(
        f"--manual_dir={manual_dir} does not hold what {name} is made from:\n{lines}\n"
        f"Download it from {page}{f' ({how})' if how else ''} and put it there.\n"
        f"Found there: {listed or 'nothing'}"
    )
