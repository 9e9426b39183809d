"""Names of modules in two ways, read in both directions from one table."""

import dataclasses
import functools
import re


@dataclasses.dataclass(frozen=True)
class Renaming:
    """Pairs of what names begin with, theirs and ours, in whole parts between dots.

    The first pair that fits is taken; a name that none fits is the same in both. A number is
    {+1} in theirs where ours is larger by one, and {} in ours: ("blocks.{+1}", "block_{}").

    Attributes:
      pairs: (theirs, ours).
    """

    pairs: tuple[tuple[str, str], ...]

    def ours(self, name: str) -> str:
        """Ours for theirs: "blocks.0.attn.qkv" is "block_1.attn.qkv"."""
        for theirs, ours in self.pairs:
            if match := _pattern(theirs).match(name):
                numbers = [
                    int(number) + more
                    for number, more in zip(match.groups(), _offsets(theirs), strict=True)
                ]
                return ours.format(*numbers) + name[match.end() :]
        return name

    def theirs(self, name: str) -> str:
        """The other way."""
        for theirs, ours in self.pairs:
            if match := _pattern(ours).match(name):
                result = theirs
                for number, more in zip(match.groups(), _offsets(theirs), strict=True):
                    result = result.replace(f"{{+{more}}}", str(int(number) - more), 1)
                return result + name[match.end() :]
        return name


@functools.cache
def _pattern(side: str) -> re.Pattern:
    parts = re.split(r"\{[^}]*\}", side)
    return re.compile(r"(\d+)".join(map(re.escape, parts)) + r"(?=\.|$)")


@functools.cache
def _offsets(theirs: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\{\+(\d+)\}", theirs))
