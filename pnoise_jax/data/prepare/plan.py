"""What is to be prepared: the entries of every split, found without reading an image."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from pnoise_jax.data.prepare.sources import Member, Source
from pnoise_jax.data.prepare.treatment import Rule
from pnoise_jax.terminal import printable


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One example.

    Attributes:
      key: its `file_name`.
      label: the class.
      member: where its bytes are.
      hash_key: by whose hash TFDS orders a split; "" where that is `key`.
      label_set: of an image with several labels, those that are correct; may be empty.
    """

    key: str
    label: int
    member: Member
    hash_key: str = ""
    label_set: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """One split, its entries in the order in which `Plan.order` "listed" stores them."""

    name: str
    source: Source
    entries: Sequence[Entry]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A data set.

    Attributes:
      name: `imagenet2012`, or "name/config" as `folder/pets`.
      version: of the prepared directory.
      splits: at least one.
      class_names: by label.
      description: one sentence.
      homepage: where it comes from, or "".
      repairs: the keys of the images that TFDS repairs, while all others keep their bytes, odd
        ones too. None: whatever a reader could stumble over is converted.
      notes: what the user should know, such as a split that is not there.
      class_order: how the names were put in order, for preparation.json: "sorted" by code points,
        "natural", or "published".
      order: in which examples are stored: "hashed", as TFDS does it, or "listed", as the entries
        of each split are given here, so that the order of a published list is not lost.
      layout: of class folders, "classes" or "splits"; None where the data set has its own.
      jpeg_only: whether the data set declares its images as JPEG, as some of TFDS's do.
      image_shape: (height, width, channels) that all images must have; None where sizes differ.
    """

    name: str
    version: str
    splits: Sequence[SplitPlan]
    class_names: Sequence[str]
    description: str
    homepage: str = ""
    repairs: frozenset[str] | None = None
    notes: Sequence[str] = ()
    class_order: str = "sorted"
    order: Literal["hashed", "listed"] = "hashed"
    layout: str | None = None
    jpeg_only: bool = False
    image_shape: tuple[int, int, int] | None = None

    @property
    def has_label_sets(self) -> bool:
        """Whether its entries have a `label_set`."""
        return any(e.label_set is not None for split in self.splits for e in split.entries[:1])

    def rule(self, key: str) -> Rule:
        """What `treat` is to do with an image."""
        if self.repairs is None:
            return "convert"
        return "repair" if key in self.repairs else "keep"


def shorten(names: Sequence[str], *, limit: int = 10, separator: str = ", ") -> str:
    """Names in a row, fit for a terminal; of many the first, and how many more there are."""
    more = f"{separator}and {len(names) - limit} more" if len(names) > limit else ""
    return separator.join(printable(str(name)) for name in names[:limit]) + more
