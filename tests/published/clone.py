"""A clone of the authors' published code: is it the commit that was compared?"""

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = "https://github.com/Shawey94/NoisyNN"
COMMIT = "719ccf68823a89cca756682c2c65f78ef08ca04e"
FOLDER = " NoisyViT-OptimalQ"  # its name begins with a space
DIGESTS = {
    "ViT.py": "3ea8633e096fbf9fa70dff4bb1c20ee37bc45c1f8fdfaf0038cb8915ef8c8c90",
    "Main.py": "76180600b30e525d06feadfeaa6eb17dfbf909fb1f19db407b4f8d3b265e73db",
    "Accdataloader.py": "e4a31871e5448d5510ebe739917fdf2abc621ae8d041e94aded8b131ff76dd04",
    "parameters.py": "54d2f4069e3c611b4709bafcdd1b30fd14fc2c0bb8ade9cb8d908e9ef6711608",
    "utils.py": "29099d9d88d61fb19f4d1e30f7890f8cdf3623cb6c17f3138126602607b8f353",
}


class UnknownCodeError(ValueError):
    """The directory does not hold the code that was compared."""


def code_folder(clone: Path, digests: Mapping[str, str] = DIGESTS) -> Path:
    """The folder of the ViT's code in a clone, after checking every file of it that is run.

    Args:
      clone: the top directory of the clone.
      digests: SHA-256 of each file, by name.

    Raises:
      UnknownCodeError: a file is missing or differs. The message names the commit, where the clone
        records one, and both digests of each such file.
    """
    folder = clone / FOLDER
    if not folder.is_dir():
        raise UnknownCodeError(
            f"{str(clone)!r} has no folder {FOLDER!r} (its name begins with a space). "
            f"{_commit_of(clone)} Give the top directory of a clone of {REPOSITORY} at commit "
            f"{COMMIT}"
        )
    differing = []
    for name, expected in digests.items():
        file = folder / name
        if not file.is_file():
            differing.append(f"{name} is missing")
            continue
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != expected:
            differing.append(f"{name} has the SHA-256 {digest}, expected {expected}")
    if differing:
        raise UnknownCodeError(
            f"{str(clone)!r} is not the published code at commit {COMMIT}. {_commit_of(clone)} "
            f"Files that differ: {'; '.join(differing)}. The comparison covers that commit alone "
            f"and does not run other code. To get it: git -C DIR checkout {COMMIT[:12]}"
        )
    return folder


def _commit_of(clone: Path) -> str:
    """A sentence on the commit that is checked out."""
    # Without its own .git, git would answer for a repository further up.
    if not (clone / ".git").exists():
        return "The directory is not a git clone, so it records no commit."
    try:
        answer = subprocess.run(
            ["git", "-C", str(clone), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return f"Git cannot tell which commit is checked out ({error})."
    commit = answer.stdout.strip()
    if commit == COMMIT:
        return "That commit is checked out, but files have been changed."
    return f"The commit checked out there is {commit}."
