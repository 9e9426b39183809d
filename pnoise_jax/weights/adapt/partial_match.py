"""A file's arrays on their way into a model; each adaptation returns a new `PartialMatch`."""

import dataclasses
from collections.abc import Mapping

from pnoise_jax.weights.entries import Entries, Entry
from pnoise_jax.weights.formats.array_file import Shape


@dataclasses.dataclass(frozen=True)
class PartialMatch:
    """The state of a match after the adaptations so far.

    Attributes:
      entries: the file's arrays, by our paths.
      wanted: the shapes of the arrays that the model needs from the file, by our paths.
      notes: what was done to make the arrays fit.
      advice: what the user can do about arrays that could not be adapted; their shapes differ.
    """

    entries: Entries
    wanted: Mapping[str, Shape]
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def with_note(self, note: str) -> "PartialMatch":
        """A copy with one more note; a repeated note is dropped."""
        return dataclasses.replace(self, notes=tuple(dict.fromkeys((*self.notes, note))))

    def with_advice(self, advice: str) -> "PartialMatch":
        """A copy with one more piece of advice."""
        return dataclasses.replace(self, advice=(*self.advice, advice))

    def with_entry(self, path: str, entry: Entry) -> "PartialMatch":
        """A copy with another entry for a path."""
        return dataclasses.replace(self, entries=self.entries | {path: entry})

    def entry_of_same_rank(self, path: str) -> Entry | None:
        """The file's entry for a path; None if either side lacks it, or their ranks differ."""
        entry, wanted = self.entries.get(path), self.wanted.get(path)
        if entry is None or wanted is None or len(entry.shape) != len(wanted):
            return None
        return entry
