"""Checks of flags; every error names the flag, its value and what would be right."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from pnoise_jax import noise


def whole_numbers(flag: str, values: Iterable[str], *, minimum: int) -> tuple[int, ...]:
    """``--flag=64,256`` as numbers.

    Raises:
      ValueError: one is no whole number of at least ``minimum``, or there is none.
    """
    values = list(values)
    for value in values:
        if not value.strip().isdecimal() or int(value) < minimum:
            raise ValueError(
                f"--{flag}={','.join(values)}: {value!r} is no whole number of at least {minimum}"
            )
    if not values:
        raise ValueError(f"--{flag} is empty: give one or several whole numbers, such as 8,16")
    return tuple(map(int, values))


def require_known(flag: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError, with near names, unless value is known."""
    known = list(known)
    if value not in known:
        near = difflib.get_close_matches(value, known, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"--{flag}={value}: unknown; {hint}use one of {', '.join(known)}")


def require_preset(value: str) -> None:
    """Raises ValueError, with near names, unless --preset is one of `noise.PRESETS`."""
    if value in noise.RETIRED_PRESETS:
        raise ValueError(f"--preset={value}: {noise.RETIRED_PRESETS[value].reason}")
    require_known("preset", value, noise.PRESETS)


def require_divisible(flag: str, sizes: Iterable[int], devices: Iterable[int]) -> None:
    """Raises ValueError unless every size splits evenly over every number of devices."""
    sizes = list(sizes)
    for count in devices:
        for size in sizes:
            if size % count:
                nearest = max(count, round(size / count) * count)
                raise ValueError(
                    f"--{flag}={size} is not divisible by --devices={count}: use a multiple of "
                    f"{count}, such as {nearest}, or fewer devices"
                )


def require_writable(flag: str, file: str | None) -> None:
    """Raises OSError, before any long work, where the file exists or cannot be written."""
    if file is None:
        return
    path = Path(file).expanduser().absolute()
    if path.is_dir() or not file.strip():
        raise IsADirectoryError(f"--{flag}={file} is a directory: name a file in it")
    if os.path.lexists(path):
        raise FileExistsError(
            f"--{flag}={file} exists, and timings are never overwritten: name another file, or "
            "remove it"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--{flag}={file}: {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--{flag}={file} cannot be written; choose another place")
