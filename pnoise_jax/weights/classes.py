"""The classes of a file's head and of the model that is to take it, compared by name."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pnoise_jax.data import class_names
from pnoise_jax.weights.arrays import ArrayFile
from pnoise_jax.weights.errors import weights_at


@dataclasses.dataclass(frozen=True)
class Heads:
    """A head in a file and the names of the model's classes.

    Attributes:
      file: with the head.
      ours: the model's classes by label; None where they are not known.
    """

    file: ArrayFile
    ours: Sequence[str] | None

    def others(self, number: int) -> str:
        """What is wrong with keeping a head of this number of classes; "" if nothing."""
        try:
            self._match(number)
        except class_names.DifferentClassesError as error:
            return (
                f"{error}. Set weights_head='fresh' (or 'auto') to train a new head, or give "
                "weights, or data, of the same classes"
            )
        return ""

    def order(self, number: int) -> tuple[np.ndarray | None, str]:
        """Where in the file's head each of our classes is, None as it is; and words on that."""
        found = self._match(number)
        if found.kind == "mapped":
            said = class_names.describe_order(self.file.class_names, self.ours)
            return found.order, f", put in the order of the data by name: {said}"
        has_names = self.ours is not None and not class_names.are_numbers(self.ours)
        if found.kind == "unknown" and has_names:
            return None, f", compared by number: {self._why_unknown(number)}"
        return None, ""

    def _why_unknown(self, number: int) -> str:
        theirs = self.file.class_names
        if theirs is not None and len(theirs) != number:
            return f"the file names {len(theirs)} classes"
        kind = "none" if theirs is None else "names of another kind"
        return f"the file has {kind} of the data's class names"

    def _match(self, number: int) -> class_names.Match:
        theirs = self.file.class_names
        if theirs is not None and len(theirs) != number:  # it is said of another head
            theirs = None
        whose = f"{weights_at(self.file.path)} and the data"
        return class_names.match_classes(theirs, self.ours, whose=whose, number=number)
