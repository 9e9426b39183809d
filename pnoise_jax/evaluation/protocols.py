"""Protocols: ways to evaluate a model on a test set."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way to evaluate a model.

    Attributes:
      noise: whether the injection acts.
      order: order of the test set: "shuffled", "class_sorted", or "stored", the data set's own.
      batch_size: number of consecutive examples in a batch, within which noise mixes.
      draws: number of draws of random noise; probabilities are the mean over draws.
      weight_noise: whether the task's noise on weights acts.
    """

    noise: bool
    order: str
    batch_size: int
    draws: int = 1
    weight_noise: bool = False

    def __post_init__(self):
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ValueError(
                f"evaluation.batch_size={self.batch_size!r}: give a whole number of at least 1"
            )
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 1:
            raise ValueError(f"evaluation.draws={self.draws!r}: give a whole number of at least 1")
        if self.draws > 1 and not (self.noise or self.weight_noise):
            raise ValueError(
                f"evaluation.draws={self.draws}: a clean evaluation draws nothing; set draws=1"
            )

    @property
    def name(self) -> str:
        """The protocol in words, as in the report."""
        named = f"noisy, {self.order.replace('_', '-')}" if self.noise else "clean"
        if self.weight_noise:
            named = f"{named}, noisy weights" if self.noise else "noisy weights"
        return f"{named}, mean of {self.draws} draws" if self.draws > 1 else named

    def row(self) -> dict[str, Any]:
        """Returns the fields as a row of results; draws and weight_noise only if not default."""
        row: dict[str, Any] = {"noise": self.noise, "order": self.order}
        row["batch_size"] = self.batch_size
        return row | {
            name: value
            for name, value in (("draws", self.draws), ("weight_noise", self.weight_noise))
            if value != getattr(Protocol, name)
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Protocol":
        """Returns the protocol of a row of results."""
        fields = (field.name for field in dataclasses.fields(cls))
        return cls(**{name: row[name] for name in fields if name in row})


def standard_protocols(batch_size: int, *, noise: bool) -> tuple[Protocol, ...]:
    """Returns clean and, if the model has noise, noisy in both orders, never a noisy one alone."""
    clean = Protocol(noise=False, order="shuffled", batch_size=batch_size)
    if not noise:
        return (clean,)
    return (clean, *(dataclasses.replace(clean, noise=True, order=o) for o in ORDERS))


ORDERS = ("shuffled", "class_sorted")
