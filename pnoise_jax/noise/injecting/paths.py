"""Matching the paths of submodules against patterns."""

import fnmatch
from collections.abc import Sequence

from pnoise_jax.registry import did_you_mean


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern matches a path; in both, names are joined by "/".

    As in a shell, "*" and "?" match parts of a name, but never "/": "block_*" matches every block,
    and no submodule inside one.
    """
    names, patterns = path.split("/"), pattern.split("/")
    pairs = zip(names, patterns, strict=False)
    return len(names) == len(patterns) and all(fnmatch.fnmatchcase(*pair) for pair in pairs)


def no_match(pattern: str, paths: Sequence[str]) -> ValueError:
    """The error to raise if a pattern matches none of the paths."""
    if not paths:
        return ValueError(
            f"at={pattern!r}: the module calls no submodules, so there is no site for noise; apply "
            "the noise to its input, noise(key, x)"
        )
    return ValueError(
        f"at={pattern!r} matches no submodule{did_you_mean(pattern, paths, listed=len(paths))}"
    )
