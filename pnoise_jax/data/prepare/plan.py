"""The plan of a data set: the entries of every split, found without reading an image."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from pnoise_jax.data.prepare.sources.sources import Member, Source
from pnoise_jax.data.prepare.writing.treatment import Rule
from pnoise_jax.terminal import printable


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One example.

    Attributes:
      key: its `file_name`.
      label: the class.
      member: the file with its bytes.
      hash_key: the key by whose hash TFDS orders a split; "" if that is `key`.
      label_set: for a data set whose images have several labels, the correct ones; may be empty.
    """

    key: str
    label: int
    member: Member
    hash_key: str = ""
    label_set: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """One split, with its entries in the order in which `Plan.order` "listed" stores them."""

    name: str
    source: Source
    entries: Sequence[Entry]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A data set to be prepared.

    Attributes:
      name: such as `imagenet2012`, or "name/config", such as `folder/pets`.
      version: of the prepared directory.
      splits: at least one.
      class_names: by label.
      description: one sentence.
      homepage: where the data set comes from, or "".
      repairs: the keys of the images that TFDS repairs; all others keep their bytes, even unusual
        ones. None: every image that a reader might not handle is converted.
      notes: what the user should know, such as a missing split.
      class_order: the order of the class names, for preparation.json: "sorted" by code points,
        "natural", or "published".
      order: the order in which examples are stored: "hashed", as in TFDS, or "listed", the order
        of the entries of each split, which keeps that of a published list.
      layout: of class folders, "classes" or "splits"; None if the data set has a fixed layout.
      jpeg_only: whether the data set declares its images as JPEG, as some in TFDS do.
      image_shape: (height, width, channels) that all images must have; None if sizes differ.
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
        """The rule by which `treat` treats an image."""
        if self.repairs is None:
            return "convert"
        return "repair" if key in self.repairs else "keep"


def shorten(names: Sequence[str], *, limit: int = 10, separator: str = ", ") -> str:
    """Names in a row, safe for a terminal; of many, the first, and how many more there are."""
    more = f"{separator}and {len(names) - limit} more" if len(names) > limit else ""
    return separator.join(printable(str(name)) for name in names[:limit]) + more
