"""Notices on stderr while data is opened; stdout is for a program's results."""

import functools
import sys
from collections.abc import Iterable, Iterator

from pnoise_jax.terminal import say

MANY = 20_000  # records, to read which takes so long that somebody may wonder


def tell(text: str) -> None:
    """Prints a line."""
    say(text, file=sys.stderr)


@functools.cache
def tell_once(text: str) -> None:
    """Prints a line that this process has not printed yet."""
    tell(text)


def told(parts: Iterable[list], what: str, total: int) -> Iterator[list]:
    """The parts, which have `total` items together; every tenth of `MANY` is announced."""
    done, tenths = 0, 0
    if total >= MANY:
        tell(f"{what}: {total:,} records")
    for part in parts:
        done += len(part)
        if total >= MANY and 10 * done // total > tenths:
            tenths = 10 * done // total
            tell(f"{what}: {10 * tenths} %")
        yield part
