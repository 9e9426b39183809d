"""Which submodules a pattern stands for."""

import fnmatch
from collections.abc import Sequence

from pnoise_jax.registry import did_you_mean


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern stands for a path, both of names joined by "/".

    As in a shell, "*" and "?" stand for parts of a name, and never for "/": "block_*" is every
    block, and no submodule inside one.
    """
    names, patterns = path.split("/"), pattern.split("/")
    pairs = zip(names, patterns, strict=False)
    return len(names) == len(patterns) and all(fnmatch.fnmatchcase(*pair) for pair in pairs)


def no_match(pattern: str, paths: Sequence[str]) -> ValueError:
    """What to raise where a pattern stands for none of the paths."""
    return ValueError(
        f"at={pattern!r} matches no submodule{did_you_mean(pattern, paths, listed=len(paths))}"
    )
