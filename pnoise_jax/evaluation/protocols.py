"""Protocols: the ways in which one model can be evaluated on one test set."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way to evaluate.

    Attributes:
      noise: whether the injection acts.
      order: of the test set: "shuffled", "class_sorted", or "stored", the data set's own.
      batch_size: how many consecutive examples form a batch, within which noise mixes.
    """

    noise: bool
    order: str
    batch_size: int

    def __post_init__(self):
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ValueError(
                f"evaluation.batch_size={self.batch_size!r}: give a whole number of at least 1"
            )

    @property
    def name(self) -> str:
        """The protocol in words, as in the report."""
        return f"noisy, {self.order.replace('_', '-')}" if self.noise else "clean"


def standard_protocols(batch_size: int, *, noise: bool) -> tuple[Protocol, ...]:
    """Clean; and if the model has noise, noisy in both orders: never one noisy number alone."""
    clean = Protocol(noise=False, order="shuffled", batch_size=batch_size)
    if not noise:
        return (clean,)
    return (clean, *(dataclasses.replace(clean, noise=True, order=o) for o in ORDERS))


ORDERS = ("shuffled", "class_sorted")
