"""Groups of examples of one class, in pairs of classes: the batch mates of an intervention.

The groups are disjoint, so that each is one unit of evidence: an example in two groups would count
twice.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

WANTED_PAIRS = 12  # pairs of groups; smaller groups make more pairs
MAX_PAIRS = 64
_ROWS = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Disjoint groups of mates, in pairs of two different classes.

    Attributes:
      members: (pairs, 2, mates) int, indices of examples.
      classes: (pairs, 2) int, the class of each group.
      labels: (n,), the labels of all examples.
      seed: seed of further draws.
    """

    members: np.ndarray
    classes: np.ndarray
    labels: np.ndarray
    seed: int


def pair_up(
    labels: np.ndarray, clean: np.ndarray, batch_size: int, *, group_size: int | None, seed: int
) -> Groups | None:
    """Returns groups of mates, or None if no two classes have enough examples.

    Groups are as large as the batch allows, or smaller if there would be fewer than `WANTED_PAIRS`
    pairs. Classes that the clean model confuses are paired first, because there a pull shows in the
    predictions.

    Args:
      labels: (n,).
      clean: (n, classes), logits without noise.
      batch_size: batch size of the protocol.
      group_size: how many examples the noise mixes, if that is fixed.
      seed: seed of the draws.
    """
    generator = np.random.default_rng([seed, 4])
    confused = _count_confusions(clean)
    largest, smallest = (group_size or batch_size) - 1, (group_size or 2) - 1
    if group_size is None:  # each pair needs two classes of this size
        largest = min(largest, int(np.sort(np.bincount(labels))[-2]))
    most: list[np.ndarray] = []
    for mates in range(largest, smallest - 1, -1):
        pairs = _disjoint_pairs(labels, confused, mates, generator)
        if len(pairs) > len(most):
            most = pairs
        if len(most) >= WANTED_PAIRS:
            break
    if not most:
        return None
    members = np.stack(most)
    return Groups(members, labels[members[:, :, 0]], labels, seed)


def _count_confusions(clean: np.ndarray) -> np.ndarray:
    """Counts the examples by their two likeliest classes, (classes, classes)."""
    classes = clean.shape[1]
    counts = np.zeros((classes, classes), np.int64)
    for start in range(0, len(clean) if classes > 1 else 0, _ROWS):  # each logit gets an index
        top = np.argpartition(clean[start : start + _ROWS], classes - 2, axis=1)[:, -2:]
        np.add.at(counts, (top[:, 0], top[:, 1]), 1)
    return counts + counts.T


def _disjoint_pairs(
    labels: np.ndarray, confused: np.ndarray, mates: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Returns pairs (2, mates) of disjoint groups of different classes, each group in one pair."""
    groups = {}
    for c in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == c))
        whole = members[: len(members) // mates * mates].reshape(-1, mates)
        if len(whole):
            groups[int(c)] = list(whole)
    classes = np.array(list(groups), int)  # ascending
    pairs = classes[np.stack(np.triu_indices(len(classes), 1), axis=1)]
    generator.shuffle(pairs)
    often = confused[pairs[:, 0], pairs[:, 1]]
    pairs = pairs[np.argsort(-often, kind="stable")]
    chosen = []
    for turn in range(len(labels)):  # in turns, so that no pair of classes takes all groups
        before = len(chosen)
        for one, two in _as_numbers(pairs):
            if groups[one] and groups[two] and (turn or confused[one, two]):
                chosen.append(np.stack([groups[one].pop(), groups[two].pop()]))
                if len(chosen) == MAX_PAIRS:
                    return chosen
            elif not turn and not confused[one, two]:
                break  # the following pairs were not confused either
        if turn and len(chosen) == before:
            return chosen
    return chosen


def _as_numbers(pairs: np.ndarray) -> Iterator[list[int]]:
    """Yields the rows as lists, lazily: of half a million pairs the first few usually suffice."""
    for start in range(0, len(pairs), _ROWS):
        yield from pairs[start : start + _ROWS].tolist()
