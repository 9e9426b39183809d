"""A file's arrays on their way into a model; each adaptation gives a new `PartialMatch`."""

import dataclasses
from collections.abc import Mapping

from pnoise_jax.weights.entries import Entries, Entry
from pnoise_jax.weights.formats.array_file import Shape


@dataclasses.dataclass(frozen=True)
class PartialMatch:
    """What has been adapted so far.

    Attributes:
      entries: what the file has, by our paths.
      wanted: the shapes of what the model takes from it.
      notes: what was done to make it fit.
      advice: what the user can do where that was not possible; the shapes then differ.
    """

    entries: Entries
    wanted: Mapping[str, Shape]
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def with_note(self, note: str) -> "PartialMatch":
        """This with one more note; a repeated one is dropped."""
        return dataclasses.replace(self, notes=tuple(dict.fromkeys((*self.notes, note))))

    def with_advice(self, advice: str) -> "PartialMatch":
        """This with one more piece of advice."""
        return dataclasses.replace(self, advice=(*self.advice, advice))

    def with_entry(self, path: str, entry: Entry) -> "PartialMatch":
        """This with another entry for a path."""
        return dataclasses.replace(self, entries=self.entries | {path: entry})

    def entry_of_same_rank(self, path: str) -> Entry | None:
        """The file's entry for a path; None if either side lacks it, or their ranks differ."""
        entry, wanted = self.entries.get(path), self.wanted.get(path)
        if entry is None or wanted is None or len(entry.shape) != len(wanted):
            return None
        return entry
