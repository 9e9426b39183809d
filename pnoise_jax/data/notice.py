"""Notices on stderr while data is opened; stdout is reserved for a program's results."""

import functools
import sys
from collections.abc import Iterable, Iterator

from pnoise_jax.terminal import say

MANY = 20_000  # records; reading more takes so long that progress is printed


def tell(text: str) -> None:
    """Prints a line."""
    say(text, file=sys.stderr)


@functools.cache
def tell_once(text: str) -> None:
    """Prints a line, unless this process has printed it before."""
    tell(text)


def told(parts: Iterable[list], what: str, total: int) -> Iterator[list]:
    """Yields the parts, `total` items in all; from `MANY` items on, prints progress in tenths."""
    done, tenths = 0, 0
    if total >= MANY:
        tell(f"{what}: {total:,} records")
    for part in parts:
        done += len(part)
        if total >= MANY and 10 * done // total > tenths:
            tenths = 10 * done // total
            tell(f"{what}: {10 * tenths} %")
        yield part
