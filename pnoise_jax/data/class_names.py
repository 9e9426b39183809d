"""Compares the classes of two sources by name, if both have names."""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pnoise_jax.registry import did_you_mean

Names = Sequence[str] | None

_WNID = re.compile(r"n[0-9]{8}")  # a WordNet synset ID, as in ImageNet's class names
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


class DifferentClassesError(ValueError):
    """The classes of two sources have different names, or cannot be matched by name."""


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """How our classes correspond to theirs.

    Attributes:
      kind: "same": the same names in the same order. "mapped": all our names are among theirs, but
        in another order. "unknown": one side has no names, or names of another kind.
      order: (number of our classes,), their label for each of our classes.
    """

    kind: Literal["same", "mapped", "unknown"]
    order: np.ndarray


def are_numbers(names: Names) -> bool:
    """Whether the names are the labels themselves, 0, 1, …, as TFDS names unnamed classes."""
    return names is not None and all(name == str(i) for i, name in enumerate(names))


def misnumbered(names: Names) -> int | None:
    """The first label that differs from its name, if the names are the numbers 0, 1, … reordered.

    This happens when the folders 0 to 999 of ImageNet-V2 are sorted as strings: label 2 is then
    the class named "10". None if the names are not such numbers, or are in order.
    """
    if names is None or are_numbers(names):
        return None
    if sorted(names) != sorted(map(str, range(len(names)))):
        return None
    return next(label for label, name in enumerate(names) if name != str(label))


def match_classes(theirs: Names, ours: Names, *, whose: str, number: int) -> Match:
    """Matches our classes to theirs by name.

    The numbers 0, 1, … do not count as names, unless the other side has numbers, too. Synset IDs
    (n01440764) and words are different kinds of names and cannot be compared. If several classes
    share a name, as ImageNet's two "crane" classes do, they match only if they have the same
    labels on both sides.

    Args:
      theirs: names by label, such as those of a run; None if unknown.
      ours: names by label; None if unknown.
      whose: the two sources for messages, such as "the run in … and data.name=…", theirs first.
      number: the number of our classes.

    Raises:
      DifferentClassesError: some of our names are not among theirs (the message lists them);
        several classes share a name, with different labels on the two sides; or the names on one
        side are the numbers 0, 1, … reordered, and the other side has no names, or names of another
        kind.
    """
    unknown = Match("unknown", np.arange(number))
    _refuse_misnumbered(theirs, ours, whose)
    if theirs is None or ours is None:
        return unknown
    theirs, ours = _normal(theirs), _normal(ours)
    if theirs == ours:
        return Match("same", np.arange(number))
    if (are_numbers(theirs) or are_numbers(ours)) and not _all(NUMBER, [*theirs, *ours]):
        return unknown
    if _are_two_kinds(theirs, ours):
        return unknown
    label_of = {name: label for label, name in enumerate(theirs)}
    missing = [name for name in ours if name not in label_of]
    if missing:
        raise DifferentClassesError(
            f"{whose} have different classes: {_listed(missing)} of the latter "
            f"{'is' if len(missing) == 1 else 'are'} not among the {len(theirs)} of the former "
            f"({_listed(theirs)})"
        )
    order = np.array([label_of[name] for name in ours])
    for names in (theirs, ours):
        for label in _repeated(names):
            name = names[label]
            if name in ours and not _agree(theirs, ours, label):
                raise DifferentClassesError(
                    f"{whose} have several classes called {name!r}, which cannot be told apart "
                    "because their numbers differ: give each class a unique name"
                )
            if name in ours:
                order[label] = label
    return Match("mapped", order)


def find_labels(
    classes: Sequence[int | str], names: Names, *, number: int, field: str
) -> tuple[int, ...]:
    """The labels of classes, ascending and without duplicates.

    Args:
      classes: the name (a string) or the label (an integer) of each class.
      names: the names of all classes; None if unknown.
      number: the number of all classes.
      field: the config field, for error messages.

    Raises:
      ValueError: `classes` is not a list or tuple, there is no such class, or several classes have
        the name.
    """
    if isinstance(classes, str | int) or not isinstance(classes, Sequence):
        raise ValueError(
            f"{field}={classes!r}: give a list of classes, such as ({classes!r},), or () for none"
        )
    known = None if names is None else list(_normal(names))
    return tuple(sorted({_find_label(each, known, number, field) for each in classes}))


def _find_label(wanted: int | str, names: list[str] | None, number: int, field: str) -> int:
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if 0 <= wanted < number:
            return wanted
        raise ValueError(f"{field}: there is no class {wanted}; labels are 0 to {number - 1}")
    if not isinstance(wanted, str):
        raise ValueError(f"{field}: {wanted!r} is neither the name of a class nor its label")
    if names is None:
        raise ValueError(
            f"{field}: the data set does not name its classes, so {wanted!r} is unknown; "
            f"give labels, numbers from 0 to {number - 1}"
        )
    (name,) = _normal([wanted])
    if name not in names:
        raise ValueError(f"{field}: there is no class {wanted!r}{did_you_mean(wanted, names)}")
    if names.count(name) > 1:
        raise ValueError(
            f"{field}: several classes are called {wanted!r}; give the label, a number"
        )
    return names.index(name)


def describe_order(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Describes the first class whose number differs: "'10' is class 2 there and 10 here"."""
    theirs, ours = _normal(theirs), _normal(ours)
    different = ((i, x) for i, x in enumerate(theirs) if list(ours[i : i + 1]) != [x])
    there, name = next(different, ("none", ours[-1]))  # the default: ours has additional classes
    here = ours.index(name) if name in ours else "none"
    return f"{name!r} is class {there} there and {here} here"


def are_same(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether the names are the same in the same order, up to Unicode normalisation."""
    return _normal(theirs) == _normal(ours)


def _refuse_misnumbered(theirs: Names, ours: Names, whose: str) -> None:
    """Raises DifferentClassesError if misnumbered classes would be compared by label."""
    for names, others in ((theirs, ours), (ours, theirs)):
        label = misnumbered(names)
        if label is None or (others is not None and _all(NUMBER, others)):
            continue
        assert names is not None, "None is not misnumbered"
        raise DifferentClassesError(
            f"{whose} cannot be compared by number: on one side, label {label} is the class called "
            f"{names[label]!r}, as if folders 0, 1, 2, … had been sorted as strings, and the other "
            "side does not use numbers as names. Prepare the data set again, with its classes in "
            "numerical order (for imagenet_v2: pnoise prepare --dataset imagenet_v2/…)"
        )


def _agree(theirs: Sequence[str], ours: Sequence[str], label: int) -> bool:
    """Whether a label has the same name on both sides."""
    return list(theirs[label : label + 1]) == list(ours[label : label + 1])


def _repeated(names: Sequence[str]) -> list[int]:
    """The labels of classes that share their name with another class."""
    count = collections.Counter(names)
    return [label for label, name in enumerate(names) if count[name] > 1]


def _normal(names: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in names]


def _are_two_kinds(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether one side has only synset IDs, and the other side none."""
    return any(
        _all(_WNID, some) and not any(map(_WNID.fullmatch, others))
        for some, others in ((theirs, ours), (ours, theirs))
    )


def _all(pattern: re.Pattern[str], names: Sequence[str]) -> bool:
    return all(map(pattern.fullmatch, names))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name) for name in names[:5]) + more
